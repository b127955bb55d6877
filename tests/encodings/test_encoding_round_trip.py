"""Every encoding, decoded by onnxruntime, is the quantized weight to the last bit."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import pytest
from encoded import (
    VERSIONS,
    codebook,
    compress,
    model,
    run,
    same_bits,
    session,
    sparse,
    vectors,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd import encodings
from onnxrd.encodings import ENCODINGS
from onnxrd.encodings.gap import bridged
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Codebook, Sparse

SHAPES = [(1,), (), (2, 1), (3,), (5, 1, 1), (4, 6), (7, 5), (3, 2, 3, 3), (40, 41)]
DTYPES = [np.float32, np.float16, np.float64]


@cache
def zoo():
    """Quantized weights of all kinds, by name."""
    rng = np.random.default_rng(0)
    found = {}
    for shape in SHAPES:
        for levels in (1, 2, 3, 4, 5, 9, 16, 17, 300):
            dtype = DTYPES[len(found) % 3]
            if levels <= int(np.prod(shape, dtype=int)):
                name = f"{levels} levels {shape} {dtype.__name__}"
                found[name] = codebook(rng, shape, levels, dtype, zero=levels % 2 == 1)
        for density in (0.0, 0.02, 0.4):
            dtype = DTYPES[len(found) % 3]
            found[f"density {density} {shape} {dtype.__name__}"] = sparse(
                rng, shape, density, dtype
            )
    for d, count in ((2, 300), (2, 5), (3, 16), (4, 2), (5, 40), (6, 256), (7, 4), (8, 9)):
        for shape in (SHAPES[len(found) % len(SHAPES)], (d, 30), (40, 41)):
            dtype = DTYPES[len(found) % 3]
            found[f"{count} vectors of {d} {shape} {dtype.__name__}"] = vectors(
                rng, shape, d, count, dtype
            )
    mostly = np.where(rng.random(1640) < 0.01, rng.integers(1, 9, 1640), 0).reshape(40, 41)
    found["bridged"] = Codebook(mostly.astype(np.uint8), np.arange(9, dtype=np.float32))
    found["dense enough"] = Codebook((mostly > 4).astype(np.uint8), np.float16([0, 2]))
    some = np.where(rng.random(2000) < 0.3, rng.integers(1, 17, 2000), 0)
    found["17 levels"] = Codebook(some.astype(np.uint8), np.arange(17, dtype=np.float64))
    found["column major"] = Codebook(np.asfortranarray(found["bridged"].codes), np.arange(9.0))
    found["word_lut"] = codebook(rng, (300, 67), 20)
    found["word_lut cut"] = codebook(rng, (301, 67), 20)
    found["vectors in words"] = vectors(rng, (600, 101), 3, 20)
    return found


@dataclass
class Case:
    data: bytes
    foretold: int
    expected: list[np.ndarray]
    again: bytes


def acceptable(name, opset, ir_version):
    """The part of the zoo that this encoding accepts in such a model."""
    encoding = next(e for e in ENCODINGS if e.name == name)
    slot = Slot("w", opset, ir_version)
    return {name: q for name, q in zoo().items() if encoding.accepts(q, slot)}


@pytest.fixture(
    scope="module",
    params=[(e.name, *v) for e in ENCODINGS for v in VERSIONS if acceptable(e.name, *v)],
    ids=lambda p: f"{p[0]}-opset{p[1]}-ir{p[2]}",
)
def case(request):
    force, opset, ir_version = request.param
    quantized = acceptable(force, opset, ir_version)
    weights = {name: np.zeros(q.shape, q.dequantize().dtype) for name, q in quantized.items()}
    original = model(weights, opset, ir_version)
    data, foretold = compress(original, quantized, force=force)
    again, _ = compress(original, quantized, force=force)
    return Case(data, foretold, [q.dequantize() for q in quantized.values()], again)


@pytest.mark.parametrize("level", ["disable", "all"])
def test_bit_exact(case, level):
    results = run(case.data, level)
    assert len(results) == len(case.expected)
    for result, expected in zip(results, case.expected):
        assert same_bits(result, expected)


def test_folds(case, tmp_path):
    path = tmp_path / "folded.onnx"
    session(case.data, "basic", str(path))
    left = {node.op_type for node in onnx.load(path).graph.node}
    assert left <= {"Mul", "Cast"}  # Cast: onnxruntime multiplies float16 as float32
    casts = [node for node in onnx.load(path).graph.node if node.op_type == "Cast"]
    assert all(
        n.attribute[0].i in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16) for n in casts
    )


def test_price_is_the_file(case):
    assert len(case.data) == case.foretold


def test_checker(case):
    onnx.checker.check_model(onnx.load_from_string(case.data), full_check=True)


def test_same_bytes_twice(case):
    assert case.data == case.again


def test_versions_are_kept(case):
    proto = onnx.load_from_string(case.data)
    assert {o.domain for o in proto.opset_import} <= {"", encodings.DOMAIN}
    assert bool(proto.functions) <= (proto.ir_version >= 8)


def test_every_encoding_is_in_the_zoo():
    slot = Slot("w", 25, 13)
    for encoding in ENCODINGS:
        assert any(encoding.accepts(q, slot) for q in zoo().values()), encoding.name


@st.composite
def codebooks(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), max_size=4)))
    levels = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(DTYPES))
    values = np.unique(rng.normal(size=levels).astype(dtype))
    if draw(st.booleans()):
        values[rng.integers(len(values))] = draw(st.sampled_from([0.0, -0.0]))
        values = np.sort(values)
    share = rng.dirichlet(np.full(len(values), draw(st.sampled_from([0.1, 1.0, 100.0]))))
    return Codebook(rng.choice(len(values), shape, p=share).astype(np.uint8), values)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(codebooks(), min_size=1, max_size=6),
    st.sampled_from([v for v in VERSIONS if v[0] > 9]),
)
def test_any_codebooks(books, version):
    quantized = {f"w{i}": q for i, q in enumerate(books)}
    original = model({name: q.dequantize() for name, q in quantized.items()}, *version)
    data, foretold = compress(original, quantized)
    assert len(data) == foretold
    for result, expected in zip(run(data, "all"), quantized.values()):
        assert same_bits(result, expected.dequantize())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=40, unique=True),
    st.sampled_from([255, 15, 5, 3]),
)
def test_bridges(positions, longest):
    positions = np.sort(positions)
    gaps, real = bridged(positions, longest)
    assert gaps.max() <= longest
    reached = np.cumsum(gaps, dtype=int)
    assert (reached[real] == positions).all()
    assert len(set(reached)) == len(reached)


def test_negative_zero_survives():
    values = np.zeros((9, 9), np.float32)
    values[3, 4], values[5, 6] = -0.0, 1.0
    original = model({"w": values})
    for force in ("dense", "gap"):
        data, _ = compress(original, {"w": Sparse(values)}, force=force)
        assert same_bits(run(data, "all")[0], values)
