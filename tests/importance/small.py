"""Small networks of many shapes, with data, and their importance."""

import numpy as np
from onnx import TensorProto, helper

import onnxrd
from tests import networks

node = helper.make_node


def measured(path, data, **settings):
    """Importance of a model on data in any form."""
    model = onnxrd.load_model(path)
    return onnxrd.fisher(model, onnxrd.load_data(data, model.inputs), **settings)


def exact(path, data, **settings):
    return measured(path, data, estimator=onnxrd.Estimator("exact"), **settings)


def assert_close(found, expected, rtol=1e-4):
    """Two measurements of the same weights are the same."""
    assert set(found.values) == set(expected.values)
    for name, values in expected.values.items():
        atol = 1e-2 * rtol * float(values.mean())
        np.testing.assert_allclose(found.values[name], values, rtol=rtol, atol=atol, err_msg=name)


def tied(folder):
    """One weight used twice, the second time transposed."""
    weights = {
        "w": networks.normal(12, 12, scale=0.3),
        "v": networks.normal(12, 6, seed=4, scale=0.5),
    }
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("Gemm", ["r", "w"], ["b"], transB=1),
        node("MatMul", ["b", "v"], ["y"]),
    ]
    return networks.save(folder / "m.onnx", nodes, weights, {"x": ["N", 12]}, {"y": ["N", 6]})


def pixels(folder):
    """A class for each pixel: channels before pixels within, classes last at the output."""
    weights = {
        "c": networks.normal(6, 2, 3, 3, scale=0.4),
        "k": networks.normal(4, 6, 2, 2, seed=1),
    }
    nodes = [
        node("Conv", ["x", "c"], ["a"], pads=[1, 1, 1, 1]),
        node("Tanh", ["a"], ["t"]),
        node("Conv", ["t", "k"], ["b"], strides=[2, 2]),
        node("Softmax", ["b"], ["p"], axis=1),
        node("Identity", ["p"], ["y"]),
    ]
    shapes = {"x": ["N", 2, 6, 6]}, {"y": ["N", 4, 3, 3]}
    return networks.save(folder / "m.onnx", nodes, weights, *shapes)


def two_inputs(folder):
    """Ids and numbers, of different shapes and types, that meet."""
    weights = {
        "table": networks.normal(20, 8, scale=0.5),
        "w": networks.normal(5, 24, seed=1, scale=0.4),
        "v": networks.normal(24, 6, seed=2, scale=0.5),
        "shape": np.array([0, -1]),
    }
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),
        node("Reshape", ["e", "shape"], ["flat"]),
        node("MatMul", ["z", "w"], ["a"]),
        node("Add", ["flat", "a"], ["s"]),
        node("Tanh", ["s"], ["t"]),
        node("MatMul", ["t", "v"], ["y"]),
    ]
    inputs = {"ids": (TensorProto.INT64, ["N", 3]), "z": ["N", 5]}
    return networks.save(folder / "m.onnx", nodes, weights, inputs, {"y": ["N", 6]})


def attention(folder):
    """A transformer's block: layer norm, self-attention, a class for each position."""
    weights = {name: networks.normal(8, 8, seed=k, scale=0.5) for k, name in enumerate("qkvo")}
    weights |= {"scale": np.ones(8, np.float32), "root": np.float32(8**0.5)}
    weights["head"] = networks.normal(8, 9, seed=9)
    nodes = [
        node("LayerNormalization", ["x", "scale"], ["n"]),
        *(node("MatMul", ["n", name], [f"{name}n"]) for name in "qkv"),
        node("Transpose", ["kn"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["qn", "kt"], ["s"]),
        node("Div", ["s", "root"], ["sd"]),
        node("Softmax", ["sd"], ["a"], axis=-1),
        node("MatMul", ["a", "vn"], ["av"]),
        node("MatMul", ["av", "o"], ["ao"]),
        node("Add", ["x", "ao"], ["r"]),
        node("Erf", ["r"], ["g"]),
        node("MatMul", ["g", "head"], ["z"]),
        node("Softmax", ["z"], ["y"], axis=-1),
    ]
    shapes = {"x": ["N", 4, 8]}, {"y": ["N", 4, 9]}
    return networks.save(folder / "m.onnx", nodes, weights, *shapes)


def two_heads(folder):
    """A classifier and a regression that share a layer."""
    weights = {
        "w": networks.normal(12, 16, scale=0.3),
        "v": networks.normal(16, 5, seed=1),
        "u": networks.normal(16, 4, seed=2, scale=0.5),
    }
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Tanh", ["a"], ["t"]),
        node("MatMul", ["t", "v"], ["z"]),
        node("Softmax", ["z"], ["y"], axis=1),
        node("MatMul", ["t", "u"], ["b"]),
        node("Sigmoid", ["b"], ["second"]),
    ]
    outputs = {"y": ["N", 5], "second": ["N", 4]}
    return networks.save(folder / "m.onnx", nodes, weights, {"x": ["N", 12]}, outputs)


def old_softmax(folder):
    """Softmax of opset 11 over two axes at once, as a single distribution."""
    weights = {"w": networks.normal(6, 5, 12, scale=0.3)}
    nodes = [
        node("Unsqueeze", ["x"], ["u"], axes=[1, 3]),  # [N, 1, 12, 1]
        node("MatMul", ["w", "u"], ["m"]),  # [N, 6, 5, 1]
        node("Softmax", ["m"], ["p"], axis=1),
        node("Identity", ["p"], ["y"]),
    ]
    shapes = {"x": ["N", 12]}, {"y": ["N", 6, 5, 1]}
    return networks.save(folder / "m.onnx", nodes, weights, *shapes, opset=11)
