"""What is found in a graph: roles, axes, ties, and why some constants are left alone."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxrd
from tests import networks

node = helper.make_node


def found(path):
    return {w.name: w for w in onnxrd.find_weights(onnxrd.load_model(path))}


@pytest.fixture
def zoo(tmp_path):
    """One network with a weight in every role and position."""
    n = networks.normal
    weights = {
        "table": n(50, 16),
        "gemm": n(16, 24),
        "gemmT": n(20, 24),
        "bias": n(20),
        "right": n(20, 18),
        "behind/transpose": n(14, 18),
        "reshaped": n(14 * 10),
        "shape": np.array([14, 10]),
        "scale": n(10),
        "position": n(8, 10),
        "tied": n(10, 10),
        "tiny": n(2, 10),
        "half": n(10, 12).astype(np.float16),
        "floor": np.float32(0),
        "dead": n(30, 30),
        "bounds": np.array([-1, 1], np.float32),
        "W": n(1, 48, 12),
        "R": n(1, 48, 12),
        "B": n(1, 96),
        "axes": np.array([2]),
    }
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),  # [8, 16]
        node("Gemm", ["e", "gemm"], ["g"]),
        node("Gemm", ["g", "gemmT", "bias"], ["t"], transB=1),
        node("MatMul", ["t", "right"], ["m"]),
        node("Transpose", ["behind/transpose"], ["bt"], perm=[1, 0]),
        node("MatMul", ["m", "bt"], ["b"]),
        node("Reshape", ["reshaped", "shape"], ["rs"]),
        node("MatMul", ["b", "rs"], ["r"]),
        node("Mul", ["r", "scale"], ["s"]),
        node("Add", ["s", "position"], ["p"]),
        node("MatMul", ["p", "tied"], ["t1"]),
        node("Relu", ["t1"], ["t1r"]),
        node("Identity", ["tied"], ["same"]),
        node("MatMul", ["t1r", "same"], ["t2"]),
        node("Cast", ["half"], ["full"], to=TensorProto.FLOAT),
        node("MatMul", ["t2", "full"], ["h"]),  # [8, 12]
        node("Max", ["h", "floor"], ["x3"]),
        node("Constant", [], ["inner"], value=numpy_helper.from_array(n(12, 12), "whatever")),
        node("MatMul", ["x3", "inner"], ["c"]),
        node("Unsqueeze", ["c", "axes"], ["u"]),
        node("Transpose", ["u"], ["seq"], perm=[0, 2, 1]),  # [8, 1, 12]
        node("LSTM", ["seq", "W", "R", "B"], ["y", "", ""], hidden_size=12),
        node("MatMul", ["dead", "dead"], ["unused"]),
        node("Clip", ["y", "low", "high"], ["out"]),
        node("Split", ["bounds"], ["lo", "hi"]),
        node("Squeeze", ["lo"], ["low"]),
        node("Squeeze", ["hi"], ["high"]),
    ]
    nodes = nodes[:-4] + nodes[-3:] + nodes[-4:-3]
    graph = helper.make_graph(
        nodes,
        "zoo",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [8, 1, 1, 12])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path = tmp_path / "zoo.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("name", "role", "axis"),
    [
        ("table", "embedding", 0),
        ("gemm", "linear", 1),
        ("gemmT", "linear", 0),
        ("right", "linear", 1),
        ("behind/transpose", "linear", 0),
        ("reshaped", "linear", None),
        ("position", "embedding", None),
        ("tied", "linear", 1),
        ("half", "linear", 1),
        ("inner", "linear", 1),
        ("W", "recurrent", 1),
        ("R", "recurrent", 1),
    ],
)
def test_compressible_weights(zoo, name, role, axis):
    weight = found(zoo)[name]
    assert (weight.role, weight.channel_axis, weight.skip) == (role, axis, "")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bias", "bias"),
        ("B", "bias"),
        ("scale", "normalisation"),
        ("shape", "int64"),
        ("dead", "no path to the output"),
        ("bounds", "no weight"),
        ("floor", "no weight"),
    ],
)
def test_constants_left_alone(zoo, name, reason):
    assert reason in found(zoo)[name].skip


def test_small_weights_are_left_alone(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx", sizes=(12, 20, 3))
    assert "too small" in found(path)["w1"].skip
    assert not found(path)["w0"].skip


def test_a_tied_weight_is_one_weight_with_two_uses(zoo):
    weight = found(zoo)["tied"]
    assert weight.tied
    assert [use.node.op_type for use in weight.uses] == ["MatMul", "MatMul"]


def test_transposed_axis_convolution_and_reversed_gemm(tmp_path):
    weights = found(networks.cnn(tmp_path / "cnn.onnx"))
    roles = {name: w.role for name, w in weights.items()}
    assert roles["c1"] == roles["c2"] == roles["c3"] == "convolution"
    assert roles["g"] == roles["m"] == "normalisation"
    assert weights["c2"].channel_axis == 0


def test_inspect_shows_what_is_found(zoo, run):
    table = run("inspect", zoo)
    assert table.code == 0
    assert "behind/transpose" in table.out
    document = json.loads(run("inspect", zoo, "--json").out)
    weights = {w["name"]: w for w in document["weights"]}
    assert weights["tied"]["tied"]
    assert weights["tied"]["left_alone"] is None
    assert document["opset"] == 17
    assert document["inputs"] == [{"name": "ids", "dtype": "int64", "shape": [8]}]
    assert document["outputs"] == ["out"]


def test_weights_in_constant_nodes_and_behind_transpose_are_compressed(zoo, run, tmp_path):
    small = tmp_path / "small.onnx"
    ran = run("quantize", zoo, "-o", small, "--clusters", "4")
    assert ran.code == 0, ran.err
    assert "NOT measured" in ran.err
    assert small.stat().st_size < 0.7 * zoo.stat().st_size
