"""Tasks of outputs on the command line."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests import networks

node = helper.make_node


@pytest.fixture
def forked(tmp_path):
    """A network with two outputs: probabilities, and values."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("MatMul", ["h", "v"], ["a"]),
        node("Softmax", ["a"], ["p"]),
        node("Tanh", ["h"], ["t"]),
    ]
    weights = {"w": networks.normal(12, 16), "v": networks.normal(16, 5)}
    outputs = {"p": ["N", 5], "t": ["N", 16]}
    return networks.save(tmp_path / "forked.onnx", nodes, weights, {"x": ["N", 12]}, outputs)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "classification+regression"),
        (["--output", "t=ignore"], "classification"),
        (["--output", "p=regression"], "regression"),
        (["--task", "classification", "--output", "t=ignore"], "classification"),
        (["--output", "t=classification"], "classification"),
        (["--objective", "regression", "--output", "t=ignore"], "regression"),
    ],
)
def test_importance_is_for_the_tasks_given(forked, calib, run, tmp_path, arguments, expected):
    target = tmp_path / "imp.npz"
    ran = run("importance", forked, "--data", calib, "-o", target, "--json", *arguments)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["task"] == expected


def test_all_commands_take_them(forked, calib, run, tmp_path):
    small = tmp_path / "small.onnx"
    arguments = ["--data", calib, "--output", "t=ignore", "--json"]
    ran = run("quantize", forked, "-o", small, "--clusters", "4", "--force", *arguments)
    heads = json.loads(ran.out)["evaluation"]["heads"]
    assert [head["output"] for head in heads] == ["p"]
    ran = run("evaluate", forked, small, *arguments)
    assert [head["output"] for head in json.loads(ran.out)["heads"]] == ["p"]


@pytest.mark.parametrize("value", ["t", "t=", "t=perhaps", "q=ignore"])
def test_what_is_no_task_is_refused(forked, calib, refused, tmp_path, value):
    arguments = ["importance", forked, "--data", calib, "-o", tmp_path / "i.npz"]
    refused(2, value.partition("=")[0], arguments=[*arguments, "--output", value])


def test_outputs_of_as_many_rows_as_are_found_can_only_be_left_out(tmp_path, run):
    """As boxes behind NonMaxSuppression."""
    nodes = [
        node("MatMul", ["x", "w"], ["y"]),
        node("Reshape", ["y", "flat"], ["all"]),
        node("Greater", ["all", "zero"], ["found"]),
        node("Compress", ["all", "found"], ["picked"]),
    ]
    weights = {"w": networks.normal(12, 200), "flat": np.array([-1]), "zero": np.float32(0)}
    path, small = tmp_path / "m.onnx", tmp_path / "small.onnx"
    outputs = {"y": ["N", 200], "picked": [None]}
    networks.save(path, nodes, weights, {"x": ["N", 12]}, outputs)
    data = networks.data(tmp_path / "calib.npz", labels=False)
    given = ("--data", data, "--task", "regression")
    ran = run("compress", path, "-o", small, *given, "--max-error", "0.01")
    assert ran.code == 1
    assert "--output picked=ignore" in ran.err
    assert not small.exists()
    ignoring = (*given, "--output", "picked=ignore")
    ran = run("compress", path, "-o", small, *ignoring, "--max-error", "0.01")
    assert ran.code == 0, ran.err
    ran = run("evaluate", path, small, *given)
    assert ran.code == 1
    assert "--output picked=ignore" in ran.err
    assert run("evaluate", path, small, *ignoring).code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "the squared error of t, "),
        (["--output", "p=regression"], "the squared error here, since p, t are"),
        (["--output", "t=ignore"], ""),
    ],
)
def test_squared_errors_that_a_limit_in_nats_applies_to(
    forked, calib, run, tmp_path, arguments, expected
):
    given = ("--data", calib, "--max-kl", "0.3", "--force")
    ran = run("compress", forked, "-o", tmp_path / "small.onnx", *given, *arguments)
    assert ran.code == 0, ran.err
    assert ("--max-kl limits" in ran.err) == bool(expected)
    assert expected in " ".join(ran.err.split())


def test_what_is_taken_for_logits_without_labels_is_said(run, tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    labelled = networks.data(tmp_path / "labelled.npz")
    data = networks.data(tmp_path / "calib.npz", labels=False)

    def said(*arguments):
        given = ("--clusters", "4", "--force")
        ran = run("quantize", path, "-o", tmp_path / "small.onnx", *given, *arguments)
        assert ran.code == 0, ran.err
        return "taken for logits" in " ".join(ran.err.split())

    assert said("--data", data)
    assert not said("--data", labelled)
    assert not said("--data", data, "--task", "regression")
    assert not said("--data", data, "--task", "classification")


def test_without_data_outputs_need_not_be_comparable(run, tmp_path):
    """As the number of a class."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("ArgMax", ["h"], ["y"], axis=1)]
    weights, path = {"w": networks.normal(64, 64)}, tmp_path / "m.onnx"
    networks.save(path, nodes, weights, {"x": ["N", 64]}, {"y": (TensorProto.INT64, ["N", 1])})
    ran = run("quantize", path, "-o", tmp_path / "small.onnx", "--clusters", "8")
    assert ran.code == 0, ran.err
