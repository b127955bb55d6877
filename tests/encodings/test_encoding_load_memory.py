"""The memory that decoding takes, against all that onnxruntime computes on the way."""

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
import pytest
from encoded import codebook, model, run, sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd import encodings
from onnxrd.encodings import ENCODINGS
from onnxrd.quantizers import Codebook, Trellis

rng = np.random.default_rng(3)


def gaussian(shape, step, dtype=np.float32):
    codes = np.rint(rng.standard_normal(shape) / step).astype(int)
    levels = np.arange(codes.min(), codes.max() + 1).astype(dtype) * dtype(step)
    return Codebook((codes - codes.min()).astype(np.uint8), levels)


def computed_nbytes(original, fragments):
    """Bytes of the weights and of all nodes' results before them, as onnxruntime computes them."""
    smaller = original.clone()
    encodings.write(smaller, fragments)
    flat = onnx.inliner.inline_local_functions(ir.to_proto(smaller))
    results = [name for node in flat.graph.node for name in node.output if name[0] != "y"]
    constants = {n.output[0] for n in flat.graph.node if n.op_type == "Constant"}
    del flat.graph.output[:]
    dense = sum(v.const_value.nbytes for n, v in smaller.graph.initializers.items() if n[0] == "w")
    if not results:
        return dense
    for name in results:
        flat.graph.output.add(name=name)
    arrays = dict(zip(results, run(flat.SerializeToString(), "disable")))
    return dense + sum(array.nbytes for name, array in arrays.items() if name not in constants)


WEIGHTS = {
    "16 levels": codebook(rng, (300, 200), 16),
    "3 levels": codebook(rng, (401, 103), 3, np.float16),
    "20 levels": codebook(rng, (300, 201), 20),
    "one value": codebook(rng, (300, 200), 1),
    "sparse": sparse(rng, (300, 200), 0.1),
    "sparse codes": Codebook(rng.binomial(3, 0.03, (300, 200)).astype(np.uint8), np.arange(4.0)),
    "gaussian": gaussian((300, 200), 0.8),
    "trellis": Trellis(
        np.rint(rng.standard_normal((300, 200))).astype(np.int16), np.asarray(np.float32(2))
    ),
    "fine": gaussian((300, 201), 0.1, np.float64),
}


@pytest.mark.parametrize("opset", [9, 13, 21])
@pytest.mark.parametrize("name", WEIGHTS)
def test_foretold_for_each_encoding(name, opset):
    original = model({"w": np.zeros(WEIGHTS[name].shape, WEIGHTS[name].dequantize().dtype)}, opset)
    slots = encodings.slots(original, ["w"])
    for encoding in ENCODINGS:
        if encoding.accepts(WEIGHTS[name], slots["w"]):
            fragment = encodings.cheapest(WEIGHTS[name], slots["w"], force=encoding.name)
            computed = computed_nbytes(original, {"w": fragment})
            assert encodings.load_nbytes([fragment]) == pytest.approx(computed, 0.02, abs=2000)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(list(WEIGHTS)), min_size=1, max_size=4))
def test_foretold_for_all_together(names):
    quantized = {f"w{i}": WEIGHTS[name] for i, name in enumerate(names)}
    original = model({n: np.zeros(q.shape, q.dequantize().dtype) for n, q in quantized.items()})
    fragments = encodings.cheapest_together(quantized, encodings.slots(original, quantized))
    computed = computed_nbytes(original, fragments)
    assert encodings.load_nbytes(fragments.values()) == pytest.approx(computed, 0.02, abs=2000)
