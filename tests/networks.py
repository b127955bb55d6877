"""Small networks and data for tests, built from seeds."""

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node


def save(
    path,
    nodes,
    weights,
    inputs,
    outputs,
    *,
    opset=17,
    ir_version=8,
    dtype=TensorProto.FLOAT,
    **extra,
):
    """Write a model; inputs and outputs are name → shape, or name → (type, shape)."""
    graph = helper.make_graph(
        nodes,
        "network",
        [_info(name, shape, dtype) for name, shape in inputs.items()],
        [_info(name, shape, dtype) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    own = {n.domain for n in (*nodes, *extra.get("functions", []))} - {""}
    imports += [helper.make_opsetid(domain, 1) for domain in sorted(own)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version, **extra)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _info(name, shape, dtype):
    if isinstance(shape, tuple):
        dtype, shape = shape
    return helper.make_tensor_value_info(name, dtype, shape)


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
        nodes.append(node("Gemm", [value, f"w{k}", f"b{k}"], [out], transB=1))
        value = out
        if k < last:
            nodes.append(node("Relu", [out], [f"r{k}"]))
            value = f"r{k}"
    if softmax:
        nodes.append(node("Softmax", [value], ["y"], axis=1))
    return save(
        path, nodes, weights, {"x": [batch, sizes[0]]}, {"y": [batch, sizes[-1]]}, **options
    )


def cnn(path, *, batch="N", activation="Relu", pool="MaxPool"):
    """Convolutions (strided, grouped), batch normalisation, a residual sum, pooling, a Gemm."""
    nodes = [
        node("Conv", ["x", "c1", "d1"], ["a1"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a1", "g", "h", "m", "v"], ["n1"]),
        node(activation, ["n1"], ["r1"]),
        node("Conv", ["r1", "c2"], ["a2"], pads=[1, 1, 1, 1], group=2),
        node("Add", ["a2", "r1"], ["s2"]),
        node(activation, ["s2"], ["r2"]),
        node(pool, ["r2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p2", "c3", "d3"], ["a3"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node(activation, ["a3"], ["r3"]),
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


def recurrent(path):
    """An LSTM whose state goes in and comes out; time first, so there is no axis of samples."""
    nodes = [
        node("LSTM", ["x", "W", "R", "B", "", "h", "c"], ["s", "hn", "cn"], hidden_size=6),
        node("Squeeze", ["s", "one"], ["q"]),
        node("MatMul", ["q", "w"], ["z"]),
        node("Softmax", ["z"], ["y"], axis=-1),
    ]
    weights = {
        "W": normal(1, 24, 5, seed=1, scale=0.5),
        "R": normal(1, 24, 6, seed=2, scale=0.4),
        "B": normal(1, 48, seed=3, scale=0.1),
        "w": normal(6, 11, seed=4),
        "one": np.array([1]),
    }
    inputs = {"x": ["T", 1, 5], "h": [1, 1, 6], "c": [1, 1, 6]}
    return save(path, nodes, weights, inputs, {"y": ["T", 1, 11]})


def with_function(path):
    """A dense layer as a model-local function that holds a weight, called twice."""
    body = [
        node(
            "Constant", [], ["W"], value=numpy_helper.from_array(normal(12, 12, seed=3, scale=0.3))
        ),
        node("MatMul", ["a", "W"], ["m"]),
        node("Tanh", ["m"], ["t"]),
        node("MatMul", ["t", "B"], ["r"]),
    ]
    imports = [helper.make_opsetid("", 17)]
    dense = helper.make_function("mine", "dense", ["a", "B"], ["r"], body, imports)
    nodes = [
        node("dense", ["x", "V"], ["h"], domain="mine"),
        node("dense", ["h", "U"], ["y"], domain="mine"),
    ]
    weights = {"V": normal(12, 12, seed=4), "U": normal(12, 8, seed=5)}
    return save(path, nodes, weights, {"x": ["N", 12]}, {"y": ["N", 8]}, functions=[dense])


def with_branches(path):
    """Weights within the branches of an If, one of them in a Constant node, and one behind it."""
    inside = numpy_helper.from_array(normal(12, 20, seed=1))
    result = [helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 20])]
    then = [node("Constant", [], ["inside"], value=inside), node("MatMul", ["x", "inside"], ["h"])]
    other = [node("MatMul", ["x", "other"], ["h"])]
    array = numpy_helper.from_array(normal(12, 20, seed=2), "other")
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node(
            "If",
            ["positive"],
            ["b"],
            then_branch=helper.make_graph(then, "then", [], result),
            else_branch=helper.make_graph(other, "else", [], result, [array]),
        ),
        node("MatMul", ["b", "w"], ["y"]),
    ]
    weights = {"w": normal(20, 8, seed=3, scale=0.3), "zero": np.float32(0)}
    return save(path, nodes, weights, {"x": ["N", 12]}, {"y": ["N", 8]})


def external(path, location="weights.bin"):
    """The `mlp` with its weights in `weights.bin`; they are looked for at `location`."""
    model = onnx.load(mlp(path))
    settings = {"all_tensors_to_one_file": True, "location": "weights.bin", "size_threshold": 100}
    onnx.save(model, path, save_as_external_data=True, **settings)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def replace(path, name, array):
    """Give an initializer other values, in place."""
    model = onnx.load(path)
    (tensor,) = [t for t in model.graph.initializer if t.name == name]
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, path)
    return path


def arrays(path):
    """The initializers of a model: name → array."""
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def data(path, *, samples=40, shape=(12,), classes=5, seed=0, name="x", labels=True):
    """Random inputs, with labels or without."""
    arrays = {name: normal(samples, *shape, seed=seed)}
    if labels:
        arrays["labels"] = rng(seed).integers(0, classes, samples)
    np.savez(path, **arrays)
    return path
