"""Weights of several parts: rows come to their places, whatever each part is encoded as."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from encoded import VERSIONS, assert_exact, codebook, model, run, same_bits, session
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd import encodings
from onnxrd.quantizers import Stacked, Trellis


def trellis(rng, shape, dtype):
    codes = np.rint(2 * rng.standard_normal(shape)).astype(np.int16)
    return Trellis(codes, np.asarray(dtype(0.02)))


def stacked(rng, rows, columns, moved, kinds, dtype=np.float32):
    """Parts of random heights, of which together so many rows are moved."""
    cuts = np.sort(rng.integers(0, rows + 1, len(kinds) - 1))
    heights = np.diff(np.concatenate(([0], cuts, [rows])))
    parts = [
        trellis(rng, (height, columns), dtype)
        if kind == "trellis"
        else codebook(rng, (height, columns), kind, dtype)
        for height, kind in zip(heights, kinds)
        if height
    ]
    return Stacked(parts, rng.permutation(rows)[:moved].astype(np.int64))


def encoded(weights, version):
    original = model({name: w.dequantize() for name, w in weights.items()}, *version)
    slots = encodings.slots(original, weights)
    fragments = encodings.cheapest_together(*encodings.apart(weights, slots))
    return original, slots, encodings.together(fragments, weights, slots)


def test_rows_are_put_in_their_places():
    """By hand: rows 3 and 1 are the last ones of the parts."""
    rng = np.random.default_rng(0)
    stack = Stacked([codebook(rng, (2, 4), 5), codebook(rng, (3, 4), 8)], np.array([3, 1]))
    first, second = (part.dequantize() for part in stack.parts)
    wanted = [first[0], second[2], first[1], second[1], second[0]]
    assert stack.shape == (5, 4)
    assert same_bits(stack.dequantize(), np.stack(wanted))


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([v for v in VERSIONS if v[0] >= 11]))
def test_exact_and_priced(data, version):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weights = {"plain": codebook(rng, (30, 20), 7)}
    for name in ("a", "b")[: data.draw(st.integers(1, 2))]:
        rows, columns = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 40))
        kinds = data.draw(st.lists(st.sampled_from(["trellis", 3, 16, 40]), min_size=1, max_size=4))
        dtype = data.draw(st.sampled_from([np.float32, np.float16, np.float64]))
        moved = data.draw(st.integers(0, rows))
        weights[name] = stacked(rng, rows, columns, moved, kinds, dtype)
    original, slots, fragments = encoded(weights, version)
    assert_exact(original, slots, fragments, weights)


@pytest.mark.parametrize("opset", [11, 17, 21])
def test_every_node_is_folded(opset, tmp_path):
    weight = stacked(np.random.default_rng(1), 300, 40, 50, ["trellis", "trellis", 16])
    original, _, fragments = encoded({"w": weight}, (opset, 8))
    encodings.write(original, fragments)
    session(ir.to_proto(original).SerializeToString(), "basic", str(tmp_path / "folded.onnx"))
    assert {n.op_type for n in onnx.load(tmp_path / "folded.onnx").graph.node} == {"Mul"}


def test_within_a_limit_of_memory():
    """Parts may be decoded in turns of their own."""
    weight = stacked(np.random.default_rng(2), 3000, 64, 500, ["trellis"] * 3)
    original, slots, best = encoded({"w": weight}, (17, 8))
    parts, places = encodings.apart({"w": weight}, slots)
    limit = encodings.load_nbytes(best.values()) // 2
    leaner = encodings.leaner(
        encodings.cheapest_together(parts, places), parts, places, load_limit=limit
    )
    fragments = encodings.together(leaner, {"w": weight}, slots)
    assert encodings.load_nbytes(fragments.values()) < encodings.load_nbytes(best.values())
    written = original.clone()
    encodings.write(written, fragments)
    (result,) = run(ir.to_proto(written).SerializeToString(), "all")
    assert same_bits(result, weight.dequantize())
