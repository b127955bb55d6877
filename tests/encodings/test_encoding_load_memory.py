"""The memory that decoding takes, against all that onnxruntime computes on the way."""

from collections import Counter
from itertools import pairwise

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
import onnxruntime as ort
import pytest
from encoded import codebook, model, run, sparse, vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd import encodings
from onnxrd.encodings import ENCODINGS
from onnxrd.quantizers import Codebook, Trellis

rng, more = np.random.default_rng(3), np.random.default_rng(4)


def gaussian(shape, step, dtype=np.float32):
    codes = np.rint(rng.standard_normal(shape) / step).astype(int)
    levels = np.arange(codes.min(), codes.max() + 1).astype(dtype) * dtype(step)
    return Codebook((codes - codes.min()).astype(np.uint8), levels)


def computed_nbytes(original, fragments):
    """Bytes of what onnxruntime has computed and still needs in its greediest turn."""
    smaller = original.clone()
    encodings.write(smaller, fragments)
    flat = onnx.inliner.inline_local_functions(ir.to_proto(smaller))
    nodes = [n for n in flat.graph.node if n.op_type != "Constant" and n.output[0][0] != "y"]
    made, read = {}, {}
    for node in nodes:
        here = max((made.get(name, 0) for name in node.input), default=0)
        made |= dict.fromkeys(node.output, here + (node.op_type == "If"))
        read |= dict.fromkeys(node.input, here)
    dense = sum(v.const_value.nbytes for n, v in smaller.graph.initializers.items() if n[0] == "w")
    if not made:
        return dense
    del flat.graph.output[:]
    for name in made:
        flat.graph.output.add(name=name)
    last = max(made.values())
    alive = Counter()
    for name, array in zip(made, run(flat.SerializeToString(), "disable")):
        until = last if name in fragments else max(made[name], read.get(name, 0))
        alive.update(dict.fromkeys(range(made[name], until + 1), array.nbytes))
    return dense + max(alive.values())


WEIGHTS = {
    "16 levels": codebook(rng, (300, 200), 16),
    "3 levels": codebook(rng, (401, 103), 3, np.float16),
    "20 levels": codebook(rng, (300, 201), 20),
    "one value": codebook(rng, (300, 200), 1),
    "sparse": sparse(rng, (300, 200), 0.1),
    "sparse codes": Codebook(rng.binomial(3, 0.03, (300, 200)).astype(np.uint8), np.arange(4.0)),
    "vectors": vectors(more, (300, 200), 3, 200),
    "vectors cut": vectors(more, (401, 103), 4, 300, np.float64),
    "few vectors": vectors(more, (300, 201), 8, 5, np.float16),
    "gaussian": gaussian((300, 200), 0.8),
    "trellis": Trellis(
        np.rint(rng.standard_normal((300, 200))).astype(np.int16), np.asarray(np.float32(2))
    ),
    "turned": Trellis(
        np.rint(rng.standard_normal((310, 200))).astype(np.int16), np.asarray(np.float64(2)), True
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


SEVERAL = {
    f"w{i}": gaussian((rows, 200), step)
    for i, (rows, step) in enumerate([(90, 0.4), (120, 0.8), (60, 0.5), (200, 1.0), (150, 0.25)])
}


def within(limit, **versions):
    """SEVERAL, decoded in memory for so many bytes a weight: model, fragments, file size."""
    original = model({n: np.zeros(q.shape, np.float32) for n, q in SEVERAL.items()}, **versions)
    slots = encodings.slots(original, SEVERAL)
    fragments = encodings.cheapest_together(SEVERAL, slots)
    if limit is not None:
        limit *= sum(q.codes.size for q in SEVERAL.values())
        fragments = encodings.leaner(fragments, SEVERAL, slots, load_limit=limit)
    return original, fragments, encodings.FileSize(original, slots)(fragments.values())


LIMITS = (None, 40, 24, 16, 9, 6, 4)


@pytest.mark.parametrize("ir_version", [8, 7])
def test_a_limit_is_kept_and_costs_bytes(ir_version):
    sizes = []
    entries = sum(q.codes.size for q in SEVERAL.values())
    for limit in LIMITS:
        original, fragments, size = within(limit, ir_version=ir_version)
        foretold = encodings.load_nbytes(fragments.values())
        assert 0.6 * foretold < computed_nbytes(original, fragments) < 1.02 * foretold + 3000
        assert foretold <= (limit or 1000) * entries
        encodings.write(original, fragments)
        written = ir.to_proto(original).SerializeToString()
        assert len(written) == size
        exact = run(written, "disable")
        for weight, got in zip(SEVERAL.values(), exact):
            np.testing.assert_array_equal(got, weight.dequantize())
        for level in ("basic", "all"):
            assert all(map(np.array_equal, exact, run(written, level)))
        sizes.append(size)
    assert all(after > 0.95 * before for before, after in pairwise(sizes))
    costs_little = sizes[LIMITS.index(16)] < 1.1 * sizes[0]
    assert costs_little == (ir_version >= 8)  # which is what turns take


def test_onnxruntime_folds_all_turns_and_then_there_is_nothing_left(tmp_path):
    original, fragments, _ = within(24)
    assert max(f.turn for f in fragments.values()) >= 1
    encodings.write(original, fragments)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    ort.InferenceSession(
        ir.to_proto(original).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    folded = onnx.load(tmp_path / "folded.onnx")
    assert {node.op_type for node in folded.graph.node} == {"Mul"}
