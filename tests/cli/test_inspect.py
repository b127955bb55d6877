"""`onnxrd inspect`: the table, and the same as JSON."""

import json

import pytest
from onnx import TensorProto, helper

from tests import networks

node = helper.make_node

NAMES = [
    "/model/layer.0/W:0",
    "enc[/a]w",
    "[bold]w",
    ":smile:",
    "w\\[x]",
    "ключ 权重",
    "a b",
    "%s{}",
]


@pytest.fixture
def named(tmp_path):
    """Weights whose names mean something to a shell, a terminal, a pattern or a zip."""
    nodes, weights, value = [], {}, "x"
    for k, name in enumerate(NAMES):
        weights[name] = networks.normal(12, 12, seed=k, scale=0.3)
        nodes.append(node("MatMul", [value, name], [f"v{k}"]))
        value = f"v{k}"
    nodes.append(node("Softmax", [value], ["y"]))
    return networks.save(tmp_path / "m.onnx", nodes, weights, {"x": ["N", 12]}, {"y": ["N", 12]})


def test_names_are_shown_as_they_are(named, run):
    table = run("inspect", named)
    assert table.code == 0
    for name in NAMES:
        (line,) = [row for row in table.out.splitlines() if row.startswith(f"{name} ")]
        assert line.split() == [*name.split(), "[12,", "12]", "float32", "linear", "144", "1", "1"]
    document = json.loads(run("inspect", named, "--json").out)
    assert [w["name"] for w in document["weights"]] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_names_can_be_excluded_and_measured(name, named, calib, run, tmp_path):
    kept = tmp_path / "imp.npz"
    assert run("importance", named, "--data", calib, "-o", kept, "-q").code == 0
    arguments = ("quantize", named, "--importance", kept, "-o", tmp_path / "out.onnx", "-q")
    ran = run(*arguments, "--exclude", name, "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["skipped"] == {name: "excluded"}
    assert {layer["name"] for layer in document["layers"]} == {*NAMES} - {name}
    assert run(*arguments).code == 0


def test_the_document(run, tmp_path):
    path = networks.cnn(tmp_path / "cnn.onnx")
    document = json.loads(run("inspect", path, "--json").out)
    assert document["path"] == str(path)
    assert document["nbytes"] == path.stat().st_size
    assert (document["opset"], document["ir_version"]) == (17, 8)
    assert document["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 2, 8, 8]}]
    assert document["outputs"] == ["y"]
    weights = {w["name"]: w for w in document["weights"]}
    assert weights["c2"] == {
        "name": "c2",
        "shape": [8, 4, 3, 3],
        "dtype": "float32",
        "role": "convolution",
        "entries": 288,
        "channel_axis": 0,
        "uses": ["input 1 of Conv "],
        "tied": False,
        "left_alone": None,
    }
    assert weights["g"]["left_alone"] == "stays as it is: normalisation"
    assert list(weights) == ["c1", "d1", "g", "h", "m", "v", "c2", "c3", "d3", "w", "b"]


def test_the_table(run, tmp_path):
    path = networks.cnn(tmp_path / "cnn.onnx")
    out = run("inspect", path).out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "input 'x' (float32 [N, 2, 8, 8])" in lines
    assert "output y" in lines
    assert "c2 [8, 4, 3, 3] float32 convolution 288 0 1" in lines
    assert "b [7] float32 bias 7 1 stays as it is: bias" in lines
    total = 144 + 288 + 720 + 70
    assert f"4 weights with {total:,} entries to compress" in lines[-1]
    assert f"({total / (total + 8 + 4 * 8 + 10 + 7):.1%} of all" in lines[-1]


def test_integers_and_texts_are_counted_but_not_shown(run, tmp_path):
    nodes = [
        node("Reshape", ["x", "shape"], ["r"]),
        node("MatMul", ["r", "w"], ["y"]),
        node("Identity", ["text"], ["said"]),
    ]
    weights = {"w": networks.normal(12, 8), "shape": [-1, 12], "text": ["a", "b"]}
    outputs = {"y": ["N", 8], "said": (TensorProto.STRING, [2])}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, {"x": ["N", 12]}, outputs)
    ran = run("inspect", path)
    assert "2 other constants not shown" in ran.out
    assert not [line for line in ran.out.splitlines() if line.startswith(("shape", "text"))]
    weights = {w["name"]: w for w in json.loads(run("inspect", path, "--json").out)["weights"]}
    assert weights["shape"]["left_alone"] == "int64, not floating point"
    assert weights["text"]["left_alone"] == "string, not floating point"
    assert run("quantize", path, "-o", tmp_path / "out.onnx", "--force").code == 0
