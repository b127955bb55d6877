"""Models that cannot be used: what is wrong is said, and nothing is left behind."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import networks

node = helper.make_node


@pytest.fixture
def unusable(refused, calib, tmp_path):
    """Every command must refuse a model, for the same reason."""

    def call(path, *telling, code=1, commands=("quantize", "prune", "importance", "evaluate")):
        options = {
            "inspect": (),
            "quantize": ("-o", tmp_path / "out.onnx", "--data", calib),
            "prune": ("-o", tmp_path / "out.onnx", "--data", calib, "--ratio", "0.5"),
            "importance": ("-o", tmp_path / "out.npz", "--data", calib),
            "evaluate": (path, "--data", calib),
        }
        for command in commands:
            refused(code, *telling, arguments=(command, path, *options[command]))

    return call


EVERY = ("inspect", "quantize", "prune", "importance", "evaluate")


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model at all" * 50, bytes(range(256)) * 9, b"\x08\x07"],
    ids=["empty", "text", "binary", "only a version"],
)
def test_a_file_that_is_no_model(content, unusable, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    unusable(path, "model.onnx", "ONNX", commands=EVERY)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_model(share, model, unusable):
    whole = model.read_bytes()
    model.write_bytes(whole[: int(share * len(whole))])
    unusable(model, "not a readable ONNX model", "complete", commands=EVERY)


def test_another_file_format(calib, unusable):
    unusable(calib, "ONNX", commands=EVERY)


def test_no_such_model(unusable, tmp_path):
    unusable(tmp_path / "none.onnx", "no such file", commands=EVERY)
    unusable(tmp_path, "this is a folder", commands=EVERY)


def test_external_data_missing_or_short(unusable, tmp_path):
    path = networks.external(tmp_path / "external.onnx")
    weights = tmp_path / "weights.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    unusable(path, "cut short", "weights.bin", "Copy it again", commands=EVERY)
    weights.unlink()
    unusable(path, "missing", "weights.bin", commands=EVERY)
    weights.mkdir()
    unusable(path, "missing", "weights.bin", commands=EVERY)


@pytest.mark.parametrize("location", ["../weights.bin", "sub/../../weights.bin", "ABSOLUTE"])
def test_external_data_outside_the_folder(location, unusable, tmp_path):
    """A model must not be able to read whatever file it names, even if that file fits."""
    folder = tmp_path / "inner"
    (folder / "sub").mkdir(parents=True)
    outside = tmp_path / "weights.bin"
    path = networks.external(folder / "external.onnx", location.replace("ABSOLUTE", str(outside)))
    shutil.move(folder / "weights.bin", outside)
    unusable(path, "outside", "Refused", commands=EVERY)


def test_external_data_outside_the_folder_by_a_link(unusable, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    path = networks.external(folder / "external.onnx")
    shutil.move(folder / "weights.bin", tmp_path / "weights.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    unusable(path, "link out of the model's folder", "cp -rL", commands=EVERY)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(value, model, refused, calib, tmp_path):
    array = networks.arrays(model)["w1"].copy()
    array[3, 4] = value
    networks.replace(model, "w1", array)
    out = ("-o", tmp_path / "out", "--data", calib)
    for command in (
        ("quantize", model, *out),
        ("quantize", model, *out, "--objective", "identity"),
        ("quantize", model, *out[:2]),
        ("prune", model, *out, "--ratio", "0.5"),
        ("importance", model, *out),
    ):
        refused(1, "'w1': 1 of 960 entries are NaN or infinite", arguments=command)


def test_outputs_that_are_not_finite(model, refused, run, calib, tmp_path):
    """For example by a broken bias, which is no weight to compress."""
    networks.replace(model, "b2", np.full(5, np.nan, np.float32))
    arguments = ("quantize", model, "-o", tmp_path / "out.onnx", "--data", calib)
    refused(1, "output 'y' is NaN or infinite", arguments=arguments)
    ran = run("evaluate", model, model, "--data", calib, "--json")
    assert json.loads(ran.out)["distortion"] is None


def test_a_model_without_weights(unusable, tmp_path):
    shapes = {"x": ["N", 12]}, {"y": ["N", 12]}
    path = networks.save(tmp_path / "relu.onnx", [node("Relu", ["x"], ["y"])], {}, *shapes)
    unusable(path, "no weights", commands=("quantize", "prune", "importance"))


def test_an_operator_that_onnxruntime_does_not_know(unusable, run, tmp_path):
    graph = helper.make_graph(
        [node("MatMul", ["x", "w"], ["a"]), node("Wobble", ["a"], ["y"], domain="nowhere")],
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 30])],
        [numpy_helper.from_array(networks.normal(12, 30), "w")],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    path = tmp_path / "odd.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    unusable(path, "onnxruntime cannot load the model", "Wobble")
    assert run("inspect", path).code == 0


def test_an_opset_from_the_future(model, unusable):
    proto = onnx.load(model)
    proto.opset_import[0].version = 99
    onnx.save(proto, model)
    unusable(model, "onnxruntime cannot load the model", "99")


def test_an_input_that_is_a_sequence(unusable, tmp_path):
    nodes = [
        node("ConcatFromSequence", ["s"], ["x"], axis=0),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 30])],
        [numpy_helper.from_array(networks.normal(12, 30), "w")],
    )
    path = tmp_path / "odd.onnx"
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    unusable(path, "'s' is not a tensor", commands=EVERY)


def test_nothing_to_compare(unusable, model):
    proto = onnx.load(model)
    proto.graph.node.append(node("ArgMax", ["y"], ["best"], axis=1, keepdims=0))
    del proto.graph.output[0]
    proto.graph.output.append(helper.make_tensor_value_info("best", TensorProto.INT64, ["N"]))
    onnx.save(proto, model)
    unusable(model, "no floating-point output")


def test_made_up_inputs_do_not_always_do(refused, run, tmp_path):
    """A free axis is taken for 1 where there are no data, which this network cannot take."""
    nodes = [node("Conv", ["x", "w"], ["a"]), node("GlobalAveragePool", ["a"], ["y"])]
    weights = {"w": networks.normal(40, 4, 5)}
    shapes = {"x": ["N", 4, "T"]}, {"y": ["N", 40, 1]}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, *shapes)
    out = ("-o", tmp_path / "out.onnx")
    refused(1, "made-up inputs", "--data", arguments=("quantize", path, *out))
    given = networks.data(tmp_path / "d.npz", shape=(4, 9), labels=False)
    assert run("quantize", path, *out, "--data", given).code == 0


def test_two_different_networks(model, calib, refused, tmp_path):
    data = ("--data", calib)
    other = networks.mlp(tmp_path / "other.onnx", sizes=(12, 8, 4))
    refused(
        1, "'y'", "[40, 5]", "[40, 4]", "same network", arguments=("evaluate", model, other, *data)
    )
    cnn = networks.cnn(tmp_path / "cnn.onnx")
    refused(1, "onnxruntime", arguments=("evaluate", model, cnn, *data))
    proto = onnx.load(model)
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "z"
    onnx.save(proto, tmp_path / "renamed.onnx")
    refused(1, "no output 'y'", arguments=("evaluate", model, tmp_path / "renamed.onnx", *data))
