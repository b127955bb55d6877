"""What is said beforehand is what comes: how the importance of each weight is found."""

import json

import numpy as np
import pytest
from onnx import helper

import onnxrd
from onnxrd.importance.outlook import outlook
from tests import networks
from tests.importance.test_fisher import beyond_det

node = networks.node


def both(path, data):
    """The outlook, and what `fisher` then does."""
    model = onnxrd.load_model(path)
    rows = onnxrd.load_data(data, model.inputs)
    return outlook(model, rows), onnxrd.fisher(model, rows)


def chain(folder, operator, **attributes):
    """An operator between two weights, of which it is upstream of one."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node(operator, ["a"], ["b"], **attributes),
        node("MatMul", ["b", "v"], ["y"]),
    ]
    weights = {"w": networks.normal(12, 16), "v": networks.normal(16, 5, seed=1)}
    shapes = {"x": ["N", 12]}, {"y": ["N", 5]}
    return networks.save(folder / "m.onnx", nodes, weights, *shapes, opset=20)


X = {"x": networks.normal(10, 12)}


def test_rules(tmp_path):
    expected, h = both(chain(tmp_path, "Tanh"), X)
    assert expected == {"w": "rule", "v": "rule"}
    assert not h.fallbacks and not h.proxies


def test_function_bodies(tmp_path, monkeypatch):
    """Shrink has a function body in the standard."""
    monkeypatch.delitem(onnxrd.autodiff.registry.REVERSE, ("", "Shrink"), raising=False)
    expected, h = both(chain(tmp_path, "Shrink", lambd=0.3, bias=0.1), X)
    assert expected == {"w": "function body of Shrink", "v": "rule"}
    assert not h.fallbacks and not h.proxies


def test_decompositions_and_unrolling(tmp_path):
    body = helper.make_graph(
        [node("MatMul", ["x", "inner"], ["out"])],
        "then",
        [],
        [helper.make_tensor_value_info("out", 1, ["N", 16])],
    )
    nodes = [
        node("If", ["yes"], ["a"], then_branch=body, else_branch=body),
        node("MatMul", ["a", "v"], ["y"]),
    ]
    weights = {
        "yes": np.array(True),
        "inner": networks.normal(12, 16),
        "v": networks.normal(16, 5, seed=1),
    }
    shapes = {"x": ["N", 12]}, {"y": ["N", 5]}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, *shapes)
    expected, h = both(path, X)
    assert expected == {"inner": "unrolling of If", "v": "rule"}
    assert not h.fallbacks and not h.proxies


def test_finite_differences_and_proxies(tmp_path, monkeypatch):
    path, data = beyond_det(tmp_path)
    expected, h = both(path, data)
    assert expected["w"] == "rule"
    assert expected["w0"].startswith("finite differences: Det") and h.how("w0") == expected["w0"]
    monkeypatch.setattr("onnxrd.importance.finite_difference.FALLBACK_FREE", 200)
    expected, h = both(path, data)
    assert expected["w0"].startswith("finite differences, by channel: Det")
    assert h.how("w0") == expected["w0"]
    monkeypatch.setattr("onnxrd.importance.finite_difference.FALLBACK_FREE", 0)
    monkeypatch.setattr("onnxrd.importance.finite_difference.FALLBACK_PAIRS", 0)
    expected, h = both(path, data)
    assert expected["w0"].startswith("proxy") and "Det" in expected["w0"]
    assert list(h.proxies) == ["w0"]


@pytest.mark.parametrize("make", [networks.mlp, networks.with_function])
def test_on_the_command_line(make, run, tmp_path):
    path = make(tmp_path / "m.onnx")
    data = networks.data(tmp_path / "d.npz", labels=False)
    document = json.loads(run("inspect", path, "--data", data, "--json").out)
    said = {w["name"]: w["importance"] for w in document["weights"] if not w["left_alone"]}
    assert said and set(said.values()) == {"rule"}
    assert all(w["importance"] is None for w in document["weights"] if w["left_alone"])
    assert "importance, or left alone" in run("inspect", path, "--data", data).out
    assert "importance" not in json.loads(run("inspect", path, "--json").out)["weights"][0]
