"""Small models around weights, and what onnxruntime makes of them."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxrd import encodings
from onnxrd.quantizers import Codebook, Sparse, VectorCodebook

LEVELS = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
NEWEST = onnx.defs.onnx_opset_version()
VERSIONS = sorted(
    {
        (min(opset, NEWEST), min(ir_version, onnx.IR_VERSION))
        for opset, ir_version in [
            (7, 3), (9, 3), (9, 8), (11, 6), (11, 10), (13, 7), (13, 8), (17, 8), (21, 10),
            (25, 13), (99, 99),
        ]
    }
)  # fmt: skip
"""Opset and IR version: each opset that changes something, with and without functions."""


def codebook(rng, shape, levels, dtype=np.float32, *, zero=False):
    """Random codes; all levels are used if there are enough weights."""
    values = np.unique(rng.normal(size=4 * levels + 4).astype(dtype))
    values = np.sort(rng.choice(values[values != 0], levels, replace=False))
    if zero:
        values[np.searchsorted(values, 0) % levels] = 0
        values = np.sort(values)
    size = int(np.prod(shape, dtype=int))
    codes = rng.permutation(np.arange(size) % levels).reshape(shape)
    return Codebook(codes.astype(np.uint8 if levels <= 256 else np.uint16), values)


def vectors(rng, shape, dimensions, count, dtype=np.float32):
    """Random codes of random vectors; all are used if there are enough runs."""
    runs = -(-int(np.prod(shape, dtype=int)) // dimensions)
    levels = rng.normal(size=(min(count, runs), dimensions)).astype(dtype)
    codes = rng.permutation(np.arange(runs) % len(levels))
    return VectorCodebook(codes.astype(np.uint8 if count <= 256 else np.uint16), levels, shape)


def sparse(rng, shape, density, dtype=np.float32):
    """Random values, at least one of them and not all different from zero."""
    values = rng.normal(size=shape) * (rng.random(shape) < density)
    flat = values.reshape(-1)
    flat[rng.integers(flat.size)] = 0
    if flat.size > 1 and not flat.any():
        flat[-1] = 1.5
    return Sparse(values.astype(dtype))


def model(weights, opset=17, ir_version=8, *, hold="initializer", inputs=()):
    """y_i = weight_i · x_i for each weight; x is 1 when it is run.

    Args:
        weights: name → array.
        opset: of the standard operators.
        ir_version: of the model.
        hold: weights are in an "initializer", a "constant" node, or within a "subgraph".
        inputs: names of initializers that are listed as graph inputs, too.
    """
    nodes, ins, outs, tensors = [], [], [], []
    for index, (name, array) in enumerate(weights.items()):
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = onnx.numpy_helper.from_array(array, name)
        ins.append(onnx.helper.make_tensor_value_info(f"x{index}", kind, []))
        out = onnx.helper.make_tensor_value_info(f"y{index}", kind, array.shape)
        outs.append(out)
        if name in inputs:
            ins.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
        product = onnx.helper.make_node("Mul", [name, f"x{index}"], [f"y{index}"], f"mul{index}")
        if hold == "initializer":
            tensors.append(tensor)
            nodes.append(product)
        elif hold == "constant":
            nodes += [onnx.helper.make_node("Constant", [], [name], value=tensor), product]
        else:
            nodes.append(_if(index, tensor, out, kind))
    if hold == "subgraph":
        ins.append(onnx.helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, []))
    graph = onnx.helper.make_graph(nodes, "g", ins, outs, tensors)
    opsets = [onnx.helper.make_opsetid("", opset)]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    return ir.from_proto(proto)


def _if(index, tensor, out, kind):
    inner = onnx.helper.make_tensor_value_info(f"z{index}", kind, list(tensor.dims))
    use = onnx.helper.make_node("Mul", [tensor.name, f"x{index}"], [f"z{index}"])
    then = onnx.helper.make_graph([use], "then", [], [inner], [tensor])
    other_out = onnx.helper.make_tensor_value_info(f"o{index}", kind, list(tensor.dims))
    zero = onnx.numpy_helper.from_array(
        np.zeros(tensor.dims, onnx.numpy_helper.to_array(tensor).dtype)
    )
    other_node = onnx.helper.make_node("Constant", [], [f"o{index}"], value=zero)
    other = onnx.helper.make_graph([other_node], "else", [], [other_out])
    return onnx.helper.make_node(
        "If", ["condition"], [out.name], then_branch=then, else_branch=other
    )


def compress(original, quantized, *, force=None) -> tuple[bytes, int]:
    """The file of the model with these weights, and its size as it was foretold."""
    slots = encodings.slots(original, quantized)
    fragments = encodings.cheapest_together(quantized, slots, force=force)
    size = encodings.FileSize(original, slots)(fragments.values())
    smaller = original.clone()
    encodings.write(smaller, fragments)
    return ir.to_proto(smaller).SerializeToString(), size


def session(data: bytes, level: str, path: str = "") -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = LEVELS[level]
    if path:
        options.optimized_model_filepath = path
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run(data: bytes, level: str) -> list[np.ndarray[Any, Any]]:
    """The outputs for all inputs 1."""
    made = session(data, level)
    types = {"float": np.float32, "float16": np.float16, "double": np.float64, "bool": np.bool_}
    feeds = {i.name: np.ones((), types[i.type[7:-1]]) for i in made.get_inputs()}
    return made.run(None, feeds)


def same_bits(a, b) -> bool:
    """Equal to the last bit, the sign of zeros included."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def assert_exact(original, slots, fragments, weights):
    """The file has the size that was foretold, and decodes to the weights, the last outputs."""
    written = original.clone()
    encodings.write(written, fragments)
    data = ir.to_proto(written).SerializeToString()
    assert len(data) == encodings.FileSize(original, slots)(fragments.values())
    for level in ("disable", "all"):
        for result, weight in zip(run(data, level), weights.values(), strict=True):
            assert same_bits(result, weight.dequantize())
