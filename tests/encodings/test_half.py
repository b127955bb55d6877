"""Vectors in half precision: the same numbers, at the price that was said."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from encoded import VERSIONS, codebook, model, run, same_bits, session

from onnxrd import encodings

SHAPES = [(3,), (100,), (1,), (64,), (1, 70, 1, 1), (80, 1)]


def written(opset, ir_version, shapes=SHAPES):
    """A file with a weight and vectors, what they should be, and the size as foretold."""
    rng = np.random.default_rng(3)
    vectors = {f"v{k}": rng.normal(size=s).astype("f2").astype("f4") for k, s in enumerate(shapes)}
    weight = codebook(rng, (30, 40), 16)
    original = model({"w": weight.dequantize()} | vectors, opset, ir_version)
    worth = encodings.worth_halving(vectors, opset)
    slots = encodings.slots(original, ["w", *worth])
    fragments = encodings.cheapest_together({"w": weight}, slots) | encodings.half(worth, slots)
    size = encodings.FileSize(original, slots)(fragments.values())
    encodings.write(original, fragments)
    values = [weight.dequantize(), *vectors.values()]
    return ir.to_proto(original).SerializeToString(), values, size


@pytest.mark.parametrize(("opset", "ir_version"), VERSIONS)
def test_the_same_numbers_at_the_price_that_was_said(opset, ir_version):
    data, values, size = written(opset, ir_version)
    assert len(data) == size
    onnx.checker.check_model(data)
    for level in ("disable", "basic", "all"):
        assert all(map(same_bits, run(data, level), values))


@pytest.mark.parametrize(("opset", "ir_version"), VERSIONS)
def test_nothing_is_left_of_it_when_it_runs(opset, ir_version, tmp_path):
    path = tmp_path / "optimized.onnx"
    session(written(opset, ir_version)[0], "basic", str(path))
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert not kinds & {"Cast", "Split"}


def test_two_bytes_an_entry_and_few_for_each_vector():
    many = [(size,) for size in (16, 32, 64) for _ in range(20)]
    data = written(17, 8, many)[0]
    without = written(17, 8, [])[0]
    tensors = onnx.load_from_string(data).graph.initializer
    assert sum(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in tensors) == 1
    entries = sum(size for (size,) in many)
    ends = 70 * len(many)  # of the test's own: a product, an input and an output for each vector
    assert len(data) - len(without) < 2 * entries + ends + 12 * len(many) + 100


@pytest.mark.parametrize(
    ("shapes", "worth"),
    [
        ([(63,)], []),
        ([(32,), (32,)], [0, 1]),
        ([(1, 63), (63, 1)], []),
        ([(1, 64), (5,), (60,)], [0, 1, 2]),
        ([()], []),
    ],
)
def test_worth_its_nodes(shapes, worth):
    vectors = {str(k): np.zeros(shape, np.float32) for k, shape in enumerate(shapes)}
    assert list(encodings.worth_halving(vectors, 17)) == [str(k) for k in worth]
    assert encodings.worth_halving(vectors, 5) == {}
    small = written(17, 8, shapes)[0]
    assert (onnx.TensorProto.FLOAT16 in {t.data_type for t in _tensors(small)}) == bool(worth)


def _tensors(data):
    return onnx.load_from_string(data).graph.initializer
