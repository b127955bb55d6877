"""Tasks of outputs on the command line."""

import json

import pytest
from onnx import helper

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
