"""Running graphs: from files and from memory, and what onnxruntime complains about."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import onnxrd
from onnxrd.errors import ModelError
from onnxrd.graph.session import LEVELS, Session
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
