"""What goes to stdout, what to stderr, and what -q, -v, --json, --help and --version do."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest

import onnxrd
from tests import networks

COMMANDS = ("inspect", "importance", "quantize", "prune", "evaluate")


@pytest.fixture
def arguments(model, calib, tmp_path):
    """A sound command line for each command."""
    data = ("--data", calib)
    return {
        "inspect": ("inspect", model),
        "importance": ("importance", model, *data, "-o", tmp_path / "imp.npz"),
        "quantize": ("quantize", model, *data, "-o", tmp_path / "q.onnx"),
        "prune": ("prune", model, *data, "--ratio", "0.1", "-o", tmp_path / "p.onnx"),
        "evaluate": ("evaluate", model, model, *data),
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_results_are_on_stdout_and_nothing_else(command, arguments, run):
    table = run(*arguments[command])
    assert (table.code, table.err) == (0, "")
    assert len(table.out.splitlines()) > 3
    assert max(map(len, table.out.splitlines())) <= 120
    ran = run(*arguments[command], "--json")
    assert (ran.code, ran.err) == (0, "")
    assert isinstance(json.loads(ran.out), dict)
    quiet = run(*arguments[command], "-q", "--json")
    assert quiet.err == ""
    again, document = json.loads(quiet.out), json.loads(ran.out)
    timings = ("load_seconds", "latency_ratio")
    assert {k: v for k, v in again.items() if k not in timings} == {
        k: v for k, v in document.items() if k not in timings
    }


def test_json_holds_numbers_that_json_has(model, run, tmp_path):
    """The standard error of a single sample is not a number."""
    one = networks.data(tmp_path / "one.npz", samples=1)

    def refuse(text):
        raise AssertionError(text)

    ran = run("evaluate", model, model, "--data", one, "--json")
    document = json.loads(ran.out, parse_constant=refuse)
    assert document["heads"][0]["distortion"] == {"mean": 0.0, "standard_error": None}
    assert "nan" not in run("evaluate", model, model, "--data", one).out


def test_json_of_quantize_agrees_with_python(arguments, calib, model, run, tmp_path):
    document = json.loads(run(*arguments["quantize"], "--json").out)
    result = onnxrd.quantize(model, tmp_path / "b.onnx", data=calib)
    assert document["path"] == str(tmp_path / "q.onnx")
    assert document["nbytes"] == list(result.nbytes)
    assert document["parameters"] == result.parameters
    assert document["predicted"] == result.predicted
    assert document["ratio"] == result.ratio
    assert document["bits_per_weight"] == result.bits_per_weight
    assert document["skipped"] == dict(result.skipped)
    assert document["importance"] == dict(result.importance)
    assert document["warnings"] == list(result.warnings) == []
    for found, layer in zip(document["layers"], result.layers, strict=True):
        assert found == {**vars(layer), "shape": list(layer.shape)}
    (found,), (head,) = document["evaluation"]["heads"], result.evaluation.heads
    assert found["distortion"] == vars(head.distortion)
    assert found["accuracy"] == list(head.accuracy)
    assert found["cross_entropy"] == list(head.cross_entropy)
    assert document["evaluation"]["samples"] == 40


def test_json_of_evaluate_agrees_with_python(arguments, calib, model, run, tmp_path):
    assert run(*arguments["prune"]).code == 0
    other = tmp_path / "p.onnx"
    document = json.loads(run("evaluate", model, other, "--data", calib, "--json").out)
    before, after = onnxrd.load_model(model), onnxrd.load_model(other)
    evaluation = onnxrd.evaluate(before, after, onnxrd.load_data(calib, before.inputs))
    assert document["distortion"] == evaluation.distortion > 0
    assert document["nbytes"] == [model.stat().st_size, other.stat().st_size]
    assert document["ratio"] == model.stat().st_size / other.stat().st_size
    assert document["heads"][0]["agreement"] == evaluation.heads[0].agreement
    assert all(seconds > 0 for seconds in document["load_seconds"])
    assert document["latency_ratio"] > 0


def test_json_of_importance_agrees_with_the_file(arguments, run, tmp_path):
    document = json.loads(run(*arguments["importance"], "--json").out)
    with np.load(tmp_path / "imp.npz") as archive:
        about = json.loads(str(archive["about"]))
        for name, weight in document.pop("weights").items():
            values = archive[f"weight:{name}"]
            assert weight["entries"] == values.size
            assert weight["mean"] == pytest.approx(float(values.mean()))
            assert weight["largest"] == float(values.max())
    assert document == about
    assert about["samples"] == 40


@pytest.mark.parametrize("more", [(), ("--json",)], ids=str)
def test_without_data_a_loud_warning(more, model, run, tmp_path):
    arguments = ("quantize", model, "-o", tmp_path / "a.onnx", *more)
    ran = run(*arguments)
    assert ran.code == 0
    assert "warning: no calibration data" in ran.err
    assert "NOT measured" in ran.err
    assert "Give --data" in ran.err
    if more:
        assert "NOT measured" in json.loads(ran.out)["warnings"][0]
    else:
        assert "NOT measured" not in ran.out
    assert run(*arguments, "-q").err == ""


def test_importance_predicts_but_does_not_measure(arguments, model, run, tmp_path):
    assert run(*arguments["importance"]).code == 0
    out = ("-o", tmp_path / "a.onnx")
    ran = run("quantize", model, "--importance", tmp_path / "imp.npz", *out)
    assert "predicted, but NOT measured" in ran.err
    assert "predicted KL divergence: " in ran.out
    assert "measured on" not in ran.out


def test_help_has_examples(run):
    assert "onnxrd quantize model.onnx -o" in run("-h").out
    for command in COMMANDS:
        for flag in ("-h", "--help"):
            ran = run(command, flag)
            assert (ran.code, ran.err) == (0, "")
            assert f"onnxrd {command}" in ran.out.split("Options:")[0].split("\n\n", 1)[1]


def test_examples_in_the_help_are_right(run, monkeypatch, tmp_path, model, calib):
    """Every line of an example runs as it stands, in the order of the commands."""
    monkeypatch.chdir(tmp_path)
    networks.data(tmp_path / "eval.npz", seed=3)
    pages = [run("-h").out, *(run(command, "-h").out for command in COMMANDS)]
    lines = [line.split() for page in pages for line in page.split("Options:")[0].splitlines()]
    examples = [line[1:] for line in lines if line[:1] == ["onnxrd"]]
    assert len(examples) >= 11
    for example in examples:
        assert run(*example).code == 0, example


def test_the_shell_is_told_what_may_come_next(run, monkeypatch):
    monkeypatch.setenv("_ONNXRD_COMPLETE", "bash_complete")
    for words, number, expected in [
        ("onnxrd qu", "1", "plain,quantize"),
        ("onnxrd quantize --enc", "2", "plain,--encoding"),
        ("onnxrd quantize --encoding byte_l", "3", "plain,byte_lut"),
        ("onnxrd quantize mod", "2", "file,mod"),
    ]:
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", number)
        assert run().out.splitlines() == [expected]


def module(*arguments, **environment):
    command = [sys.executable, "-m", "onnxrd", *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(
        command, env=environment, capture_output=True, encoding="utf8", errors="replace"
    )


def test_the_module_runs(arguments, tmp_path):
    ran = module("--version")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert version("onnxrd") in ran.stdout
    ran = module(*arguments["quantize"], "-v", "--json")
    assert ran.returncode == 0
    assert "batched path" in ran.stderr
    assert json.loads(ran.stdout)["path"] == str(tmp_path / "q.onnx")
    ran = module("inspect", tmp_path / "none.onnx")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: ")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_encoding_that_lacks_characters_is_no_failure(encoding, model, tmp_path):
    odd = tmp_path / "вес.onnx"
    command = ("quantize", model, "-o", odd, "--clusters", "4")
    ran = module(*command, PYTHONIOENCODING=encoding)
    assert (ran.returncode, "error" in ran.stderr) == (0, False), ran.stderr
    assert "\\u2192" in ran.stdout
    ran = module(*command, "--json", PYTHONIOENCODING=encoding)
    assert json.loads(ran.stdout)["path"] == str(odd)


def test_an_error_is_one_line_however_long(tmp_path):
    folder = tmp_path / ("a" * 100) / ("b" * 100)
    folder.mkdir(parents=True)
    ran = module("inspect", folder / "model.onnx")
    assert len(ran.stderr.splitlines()) == 1
