"""Running graphs: from files and from memory, and what onnxruntime complains about."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import onnxrd
from onnxrd.errors import ModelError, SettingError
from onnxrd.graph.session import LEVELS, Runtime, Session
from tests import networks

X = networks.normal(6, 12, seed=5)


def expected(path):
    w = networks.arrays(path)
    h = X
    for k in range(3):
        h = h @ w[f"w{k}"].T + w[f"b{k}"]
        h = np.maximum(h, 0) if k < 2 else h
    return h


@pytest.mark.parametrize("level", LEVELS)
def test_from_a_file_and_from_memory(level, tmp_path, monkeypatch):
    path = networks.external(tmp_path / "m.onnx")
    reference = expected(path)
    monkeypatch.chdir("/")
    model = onnxrd.load_model(path)
    sessions = Session(path, level=level), Session(model.clone(), base=path.parent, level=level)
    for session in sessions:
        assert (session.inputs, session.outputs) == (("x",), ("y",))
        found = session.run({"x": X, "labels": np.zeros(6)})["y"]  # others are ignored
        np.testing.assert_allclose(found, reference, rtol=1e-4, atol=1e-5)


def test_what_onnxruntime_says_is_passed_on(tmp_path):
    session = Session(networks.mlp(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"cannot run.*x"):
        session.run({})
    with pytest.raises(ModelError, match=r"cannot run"):
        session.run({"x": X[:, :5]})
    with pytest.raises(ModelError, match=r"cannot run"):
        session.run({"x": X}, ["nothing"])
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"cannot load"):
        Session(tmp_path / "m.onnx")


def test_outputs_that_are_no_tensors_are_left_out(tmp_path):
    model = ir.from_proto(_with_sequence())
    session = Session(model)
    assert session.outputs == ("y", "s")
    assert set(session.run({"x": X})) == {"y"}
    assert not session.run_values({"x": X})["s"].is_tensor()


def test_an_output_that_is_an_input_outlives_it(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    shapes = {"x": ["N", 12]}, {"x": ["N", 12], "y": ["N", 12]}
    session = Session(networks.save(tmp_path / "m.onnx", nodes, {}, *shapes))
    found = session.run({"x": X})
    np.testing.assert_array_equal(found["x"], X)
    assert not np.shares_memory(found["x"], X)
    fed = ort.OrtValue.ortvalue_from_numpy(X)
    assert session.run_values({"x": fed})["x"] is fed


def _with_sequence():
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("SequenceConstruct", ["y"], ["s"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sequence",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 12])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 12]),
            helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None),
        ],
    )
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def test_a_provider_that_is_not_installed(monkeypatch, refused, model, calib, tmp_path):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    out = ("-o", tmp_path / "out")
    for command in (
        ("importance", model, *out),
        ("quantize", model, *out),
        ("prune", model, *out, "--ratio", "0.5"),
        ("evaluate", model, model),
    ):
        telling = ("cannot run on 'cuda'", "Install onnxruntime-gpu", "--provider")
        refused(2, *telling, arguments=(*command, "--data", calib, "--provider", "cuda"))


def test_a_provider_that_does_not_start(monkeypatch, model):
    """onnxruntime itself only warns then, and takes the CPU."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    asked = []

    class Fallen(ort.InferenceSession):
        def __init__(self, source, options, providers):
            asked.append(providers)
            super().__init__(source, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: both)
    monkeypatch.setattr(ort, "InferenceSession", Fallen)
    with pytest.raises(SettingError, match="cannot start its provider 'cuda'"):
        Session(model, runtime=Runtime(provider="cuda"))
    Session(model)
    exact = ("CUDAExecutionProvider", {"use_tf32": "0"})
    assert asked == [[exact, "CPUExecutionProvider"], ["CPUExecutionProvider"]]


def test_every_session_runs_as_it_is_told(monkeypatch, run, model, calib, tmp_path):
    seen = []

    class Noted(ort.InferenceSession):
        def __init__(self, source, options, providers):
            seen.append(options.intra_op_num_threads)
            super().__init__(source, options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", Noted)
    out = ("-o", tmp_path / "out")
    for command in (
        ("importance", model, *out),
        ("quantize", model, *out),
        ("prune", model, *out, "--ratio", "0.5"),
        ("evaluate", model, model),
    ):
        assert run(*command, "--data", calib, "--threads", "3").code == 0
        assert seen and set(seen) == {3}, command
        seen.clear()


@pytest.mark.parametrize("wrong", [{"threads": -1}, {"provider": "abacus"}])
def test_settings_of_the_runtime_that_make_no_sense(wrong):
    with pytest.raises(SettingError):
        Runtime(**wrong)
