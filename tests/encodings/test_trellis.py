"""Trellis-coded weights: the window over parities is the recursion, and decoding is exact."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from encoded import VERSIONS, assert_exact, model, session
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd import encodings
from onnxrd.encodings.entropy import in_turns
from onnxrd.quantizers import Codebook, Trellis, state_bits
from onnxrd.quantizers.trellis import STATES, back, in_order, lead_in


def by_recursion(codes):
    """Q_t = Q_{t-2} + Q_{t-5} + p_{t-3}, one after the other."""
    bits = np.zeros(len(codes) + 5, int)
    for t in range(len(codes)):
        parity = codes[t - 3] & 1 if t >= 3 else 0
        bits[t + 5] = (bits[t + 3] + bits[t] + parity) % 2
    return bits[5:].astype(bool)


@settings(deadline=None)
@given(st.lists(st.integers(-9, 9), max_size=200))
def test_the_window_is_the_recursion(codes):
    codes = np.array(codes, np.int16)
    assert (state_bits(codes) == by_recursion(codes)).all()


@settings(deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=40))
def test_levels_are_those_of_two_grids_in_mirror_image(codes):
    codes = np.array(codes, np.int16)
    trellis = Trellis(codes, np.asarray(np.float32(0.5)))
    for k, mirrored, value in zip(codes, by_recursion(codes), trellis.dequantize()):
        level = k if k >= 0 else k + 0.5
        assert value == 0.5 * (-level if mirrored else level)


def test_all_states_are_reached():
    """Five of the state's bits in a row, driven by random parities, take all values."""
    bits = by_recursion(np.random.default_rng(0).integers(0, 2, 2000)).astype(int)
    assert len({tuple(bits[t : t + 5]) for t in range(1990)}) == STATES


@st.composite
def networks(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights = {}
    for index in range(draw(st.integers(1, 4))):
        shape = tuple(draw(st.lists(st.integers(1, 12), max_size=4)))
        dtype = draw(st.sampled_from([np.float32, np.float16, np.float64]))
        codes = np.rint(rng.standard_normal(shape) * draw(st.sampled_from([0.3, 2, 20])))
        turned = bool(shape) and draw(st.booleans())
        step = np.asarray(dtype(0.013))
        weights[f"w{index}"] = Trellis(np.asarray(codes, np.int16), step, turned)
    if draw(st.booleans()):
        codes = rng.integers(0, 300, (20, 9)).astype(np.uint16)
        weights["book"] = Codebook(codes, np.arange(300, dtype=np.float32))
    return weights


@settings(max_examples=25, deadline=None)
@given(networks(), st.sampled_from([v for v in VERSIONS if v[0] >= 11]), st.sampled_from([1, 4]))
def test_exact_and_priced(weights, version, turns):
    original = model({name: w.dequantize() for name, w in weights.items()}, *version)
    slots = encodings.slots(original, weights)
    fragments = encodings.cheapest_together(weights, slots, force="entropy")
    if turns > 1 and version[1] >= 8:
        fragments = in_turns(weights, slots, turns)
    assert_exact(original, slots, fragments, weights)


@pytest.mark.parametrize("opset", [11, 17, 21])
@pytest.mark.parametrize("turned", [False, True])
def test_every_node_is_folded(opset, turned, tmp_path):
    rng = np.random.default_rng(1)
    codes = np.rint(rng.standard_normal((50, 40)) * 2).astype(np.int16)
    weight = Trellis(codes, np.asarray(np.float32(0.1)), turned)
    original = model({"w": weight.dequantize()}, opset, 8)
    fragments = encodings.cheapest_together(
        {"w": weight}, encodings.slots(original, ["w"]), force="entropy"
    )
    encodings.write(original, fragments)
    session(ir.to_proto(original).SerializeToString(), "basic", str(tmp_path / "folded.onnx"))
    assert {n.op_type for n in onnx.load(tmp_path / "folded.onnx").graph.node} == {"Mul"}


@given(st.lists(st.integers(-9, 9), max_size=80), st.lists(st.integers(-9, 9), max_size=40))
def test_a_few_codes_lead_to_the_state_behind_many(before, after):
    codes = np.array(before, np.int16)
    short = lead_in(codes)
    goes_on = [state_bits(np.append(c, after).astype(np.int16))[len(c) :] for c in (codes, short)]
    assert (goes_on[0] == goes_on[1]).all()


def test_turned_means_the_first_axis_before_the_others():
    weight = np.arange(24).reshape(3, 2, 4)
    assert in_order(weight, turned=True).tolist()[:4] == [0, 8, 16, 1]
    for turned in (False, True):
        assert (back(in_order(weight, turned=turned), weight.shape, turned=turned) == weight).all()


def test_dense_where_streams_cannot_be():
    weight = Trellis(np.array([[3, -200], [0, 1]], np.int16), np.asarray(np.float32(0.1)))
    slots = encodings.slots(model({"w": weight.dequantize()}), ["w"])
    assert encodings.cheapest_together({"w": weight}, slots)["w"].encoding == "dense"
