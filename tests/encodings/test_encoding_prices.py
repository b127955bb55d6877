"""Prices are the bytes of the file, and the cheapest is taken."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from encoded import VERSIONS, codebook, compress, model, run, same_bits, sparse, vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd import encodings
from onnxrd.encodings import lut
from onnxrd.encodings.slot import Slot
from onnxrd.errors import SettingError
from onnxrd.quantizers import Codebook, Sparse

rng = np.random.default_rng(2)


@st.composite
def networks(draw):
    """A model, its quantized weights, and the name of an encoding for each."""
    names = draw(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=8, unique=True))
    names = [n for n in names if n.encode("utf8", "ignore").decode() == n and n[0] not in "xy"]
    opset, ir_version = draw(st.sampled_from(VERSIONS))
    seed = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights = {}
    for name in names:
        shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 13]), max_size=4)))
        size = int(np.prod(shape, dtype=int))
        dtype = draw(st.sampled_from([np.float32, np.float16, np.float64]))
        kind = draw(st.sampled_from(["sparse", "vectors", "codebook", "codebook"]))
        if kind == "sparse":
            weights[name] = sparse(seed, shape, draw(st.floats(0, 1)), dtype)
        elif kind == "vectors":
            d = draw(st.integers(2, 8))
            weights[name] = vectors(seed, shape, d, draw(st.integers(1, 300)), dtype)
        else:
            levels = min(size, draw(st.integers(1, 300)))
            weights[name] = codebook(seed, shape, levels, dtype, zero=draw(st.booleans()))
    arrays = {name: np.zeros(q.shape, q.dequantize().dtype) for name, q in weights.items()}
    hold = draw(st.sampled_from(["initializer", "initializer", "constant", "subgraph"]))
    if opset < 9:
        hold = "initializer"
    some = draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    original = model(
        arrays, opset, ir_version, hold=hold, inputs=some if hold == "initializer" else ()
    )
    return original, weights, draw(st.randoms(use_true_random=False))


@settings(max_examples=150, deadline=None)
@given(networks())
def test_the_price_is_the_file(tmp_path_factory, network):
    original, quantized, random = network
    slots = encodings.slots(original, quantized)
    size = encodings.FileSize(original, slots)
    for _ in range(2):
        fragments = {}
        for name, weight in quantized.items():
            fragments[name] = random.choice(encodings.options(weight, slots[name]))
        smaller = original.clone()
        encodings.write(smaller, fragments)
        path = tmp_path_factory.getbasetemp() / "priced.onnx"
        ir.save(smaller, path)
        assert path.stat().st_size == size(fragments.values())


@settings(max_examples=30, deadline=None)
@given(networks())
def test_together_is_never_dearer_than_apart(network):
    original, quantized, _ = network
    slots = encodings.slots(original, quantized)
    size = encodings.FileSize(original, slots)
    together = encodings.cheapest_together(quantized, slots)
    for paid in (None, ()):
        apart = [encodings.cheapest(q, slots[n], paid=paid) for n, q in quantized.items()]
        assert size(together.values()) <= size(apart)


def twenty_convolutions(opset, ir_version):
    shapes = [(16, 3, 3, 3), *[(16, 16, 3, 3)] * 6, *[(32, 32, 3, 3)] * 6, *[(64, 64, 3, 3)] * 7]
    quantized = {f"onnx::Conv_{275 + i}": codebook(rng, s, 16) for i, s in enumerate(shapes)}
    original = model({n: q.dequantize() for n, q in quantized.items()}, opset, ir_version)
    return original, quantized


@pytest.mark.parametrize(
    ("opset", "ir_version", "budget"),
    [(7, 3, 470), (11, 6, 380), (13, 7, 380), (13, 8, 225), (17, 8, 225), (21, 10, 205)],
)
def test_overhead_of_a_weight(opset, ir_version, budget):
    """All that 20 convolutions at 16 levels take besides 4 bits a weight: levels, names, nodes."""
    original, quantized = twenty_convolutions(opset, ir_version)
    size = compress(original, quantized)[1]
    slots = encodings.slots(original, quantized)
    dense = [encodings.cheapest(q, slots[n], force="dense") for n, q in quantized.items()]
    without = encodings.FileSize(original, slots)(dense) - sum(f.nbytes for f in dense)
    codes = sum(q.codes.size // 2 for q in quantized.values())
    assert (size - without - codes) / len(quantized) < budget


def test_functions_and_shapes_are_shared():
    original, quantized = twenty_convolutions(17, 8)
    proto = onnx.load_from_string(compress(original, quantized)[0])
    assert [f.name for f in proto.functions] == ["lut"]
    assert len(proto.graph.initializer) == 2 * 20 + 4
    assert sum(node.domain == encodings.DOMAIN for node in proto.graph.node) == 20


def test_pricing_packs_nothing(rng, monkeypatch):
    def refuse(*args):
        raise AssertionError("packed")

    monkeypatch.setattr(lut, "pack", refuse)
    weight = codebook(rng, (1000, 100), 16)
    fragment = encodings.cheapest(weight, Slot("w", 17, 8))
    assert fragment.encoding == "byte_lut"
    assert 50_000 < fragment.nbytes < 50_300
    with pytest.raises(AssertionError):
        fragment.tensors["q0"].tobytes()


@pytest.mark.parametrize(
    ("quantized", "opset", "ir_version", "encoding"),
    [
        (codebook(rng, (100, 100), 2), 17, 8, "byte_lut"),
        (codebook(rng, (100, 100), 2), 21, 10, "byte_lut"),
        (codebook(rng, (100, 100), 16), 17, 8, "byte_lut"),
        (codebook(rng, (100, 100), 16), 21, 10, "native_int4"),
        (codebook(rng, (100, 100), 4), 25, 13, "native_int4"),
        (codebook(rng, (100, 100), 100), 17, 8, "byte_codes"),
        (codebook(rng, (300, 300), 20), 17, 8, "word_lut"),
        (codebook(rng, (100, 100), 3000), 17, 8, "byte_codes"),
        (codebook(rng, (100, 100), 9000), 17, 8, "dense"),
        (codebook(rng, (2, 2), 4), 17, 8, "dense"),
        (codebook(rng, (100, 100), 1), 17, 8, "fill"),
        (sparse(rng, (100, 100), 0.1), 17, 8, "gap"),
        (sparse(rng, (100, 100), 0.1), 9, 4, "dense"),
        (sparse(rng, (100, 100), 1.0), 17, 8, "dense"),
        (Sparse(np.zeros((100, 100), np.float64)), 17, 8, "fill"),
        (Sparse(np.zeros((100, 0), np.float32)), 17, 8, "dense"),
        (Sparse(np.zeros((100, 100), np.float32)), 7, 3, "dense"),
    ],
)
def test_the_cheapest(quantized, opset, ir_version, encoding):
    assert encodings.cheapest(quantized, Slot("w", opset, ir_version), paid=()).encoding == encoding


def test_options_and_the_best_of_them(rng):
    weight = codebook(rng, (50, 60), 16, zero=True)
    found = encodings.options(weight, Slot("w", 21, 10))
    best = encodings.cheapest(weight, Slot("w", 21, 10))
    assert best.nbytes == min(fragment.nbytes for fragment in found)
    names = [fragment.encoding for fragment in found]
    assert names == ["dense", "native_int4", "byte_lut", "byte_codes", "gap"]


def test_sparse_codebook_takes_few_bits(rng):
    values = np.where(rng.random((400, 500)) < 0.02, rng.integers(1, 16, (400, 500)), 0)
    weight = Codebook(values.astype(np.uint8), np.arange(16, dtype=np.float32))
    fragment = encodings.cheapest(weight, Slot("w", 13, 8))
    assert fragment.encoding == "gap"
    assert 8 * fragment.nbytes / values.size < 0.26


def test_values_without_the_zero_level_take_four_bits():
    """Gaps of 15 at most need no bridges, so that the zero level is not among the values."""
    seed = np.random.default_rng(7)
    ends = np.cumsum(seed.choice([1, 15], 100_000))
    codes = np.zeros((5, -(-(ends[-1] + 1) // 5)), np.uint8)
    codes.flat[ends] = np.arange(len(ends)) % 16 + 1
    weight = Codebook(codes, np.arange(17, dtype=np.float32))
    fragment = encodings.cheapest(weight, Slot("w", 13, 8), force="gap")
    assert 8 * fragment.nbytes / len(ends) < 4 + 4.1
    original = model({"w": weight.dequantize()}, 13)
    assert same_bits(run(compress(original, {"w": weight})[0], "all")[0], weight.dequantize())


@pytest.mark.parametrize(
    ("levels", "density", "bits"),
    [(2, 0.05, 8.1), (3, 0.02, 10), (17, 0.2, 9.9), (17, 0.5, 8.4)],
)
def test_the_gaps_are_as_short_as_pays(levels, density, bits):
    """Bits per nonzero weight, where bridges cost a level, which may cost more than their bits."""
    seed = np.random.default_rng(8)
    codes = np.where(seed.random(300_000) < density, seed.integers(1, levels, 300_000), 0)
    weight = Codebook(codes.astype(np.uint8), np.arange(levels, dtype=np.float32))
    fragment = encodings.cheapest(weight, Slot("w", 13, 8), force="gap")
    assert 8 * fragment.nbytes / np.count_nonzero(codes) < bits
    original = model({"w": weight.dequantize()}, 13)
    written, _ = compress(original, {"w": weight}, force="gap")
    assert same_bits(run(written, "all")[0], weight.dequantize())


def test_levels_that_no_weight_has_are_dropped(rng):
    codes = rng.choice([3, 100, 250], (100, 100)).astype(np.uint8)
    weight = Codebook(codes, np.arange(256, dtype=np.float32))
    fragment = encodings.cheapest(weight, Slot("w", 17, 8))
    assert fragment.encoding == "byte_lut"
    assert fragment.nbytes < 2200
    data, _ = compress(model({"w": weight.dequantize()}), {"w": weight})
    assert same_bits(run(data, "all")[0], weight.dequantize())


def test_forced_and_illegal(rng):
    weight = codebook(rng, (10, 10), 40)
    with pytest.raises(SettingError, match=r"'native_int4'.*opset 17.*dense, byte_codes"):
        encodings.cheapest(weight, Slot("w", 17, 8), force="native_int4")
    with pytest.raises(SettingError, match="nonsense"):
        encodings.cheapest_together({"w": weight}, {"w": Slot("w", 17, 8)}, force="nonsense")


def test_a_function_is_not_worth_a_single_small_weight(rng):
    big = {f"big{i}": codebook(rng, (64, 64), 16) for i in range(3)}
    odd = {"odd": codebook(rng, (9, 13), 16)}  # needs a cut, so a function of its own
    quantized = big | odd
    original = model({n: q.dequantize() for n, q in quantized.items()})
    fragments = encodings.cheapest_together(quantized, encodings.slots(original, quantized))
    assert {fragments[n].encoding for n in big} == {"byte_lut"}
    assert fragments["odd"].encoding == "byte_codes"
    assert "onnxrd::lut_cut" not in {k for f in fragments.values() for k in f.shared}
