"""Small networks and data for tests, built from seeds."""

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save(path, nodes, weights, inputs, outputs, *, opset=17, ir_version=8, **extra):
    """Write a model; inputs and outputs are name → shape (float32)."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version, **extra)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(*shape, seed=0, scale=1.0):
    return (rng(seed).standard_normal(shape) * scale).astype(np.float32)


def mlp(path, *, sizes=(12, 40, 24, 5), softmax=False, batch="N", seed=0, **options):
    """Fully connected ReLU layers with Gemm, weights `w0`, `w1`, … and biases `b0`, …"""
    nodes, weights, value = [], {}, "x"
    last = len(sizes) - 2
    for k, (a, b) in enumerate(pairwise(sizes)):
        weights[f"w{k}"] = normal(b, a, seed=seed + k, scale=1.5 / np.sqrt(a))
        weights[f"b{k}"] = normal(b, seed=seed + 10 + k, scale=0.1)
        out = f"h{k}" if k < last or softmax else "y"
        nodes.append(helper.make_node("Gemm", [value, f"w{k}", f"b{k}"], [out], transB=1))
        value = out
        if k < last:
            nodes.append(helper.make_node("Relu", [out], [f"r{k}"]))
            value = f"r{k}"
    if softmax:
        nodes.append(helper.make_node("Softmax", [value], ["y"], axis=1))
    return save(
        path, nodes, weights, {"x": [batch, sizes[0]]}, {"y": [batch, sizes[-1]]}, **options
    )


def cnn(path, *, batch="N"):
    """Convolutions (strided, grouped), batch normalisation, a residual sum, pooling, a Gemm."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "c1", "d1"], ["a1"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a1", "g", "h", "m", "v"], ["n1"]),
        node("Relu", ["n1"], ["r1"]),
        node("Conv", ["r1", "c2"], ["a2"], pads=[1, 1, 1, 1], group=2),
        node("Add", ["a2", "r1"], ["s2"]),
        node("Relu", ["s2"], ["r2"]),
        node("MaxPool", ["r2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p2", "c3", "d3"], ["a3"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["a3"], ["r3"]),
        node("GlobalAveragePool", ["r3"], ["p3"]),
        node("Flatten", ["p3"], ["f3"]),
        node("Gemm", ["f3", "w", "b"], ["y"], transB=1),
    ]
    weights = {
        "c1": normal(8, 2, 3, 3, seed=1, scale=0.4),
        "d1": normal(8, seed=2, scale=0.1),
        "g": 1 + normal(8, seed=3, scale=0.1),
        "h": normal(8, seed=4, scale=0.1),
        "m": normal(8, seed=5, scale=0.1),
        "v": 1 + np.abs(normal(8, seed=6, scale=0.1)),
        "c2": normal(8, 4, 3, 3, seed=7, scale=0.3),
        "c3": normal(10, 8, 3, 3, seed=8, scale=0.3),
        "d3": normal(10, seed=9, scale=0.1),
        "w": normal(7, 10, seed=10, scale=0.8),
        "b": normal(7, seed=11, scale=0.1),
    }
    return save(path, nodes, weights, {"x": [batch, 2, 8, 8]}, {"y": [batch, 7]})


def data(path, *, samples=40, shape=(12,), classes=5, seed=0, name="x", labels=True):
    """Random inputs, with labels or without."""
    arrays = {name: normal(samples, *shape, seed=seed)}
    if labels:
        arrays["labels"] = rng(seed).integers(0, classes, samples)
    np.savez(path, **arrays)
    return path
