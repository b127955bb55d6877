"""Data and importance that do not fit, and settings that make no sense."""

import json

import numpy as np
import pytest

from tests import networks


@pytest.fixture
def fails(refused, model, calib, tmp_path):
    """`quantize` with these options must fail."""

    def call(code, *telling, data=calib, more=()):
        given = () if data is None else ("--data", data)
        arguments = ("quantize", model, "-o", tmp_path / "out.onnx", *given, *more)
        return refused(code, *telling, arguments=arguments)

    return call


X = np.zeros((3, 12), np.float32)


@pytest.mark.parametrize(
    ("arrays", "telling"),
    [
        ({"y": X}, ["'x'", "'y'"]),
        ({"x": X, "z": X}, ["'z'"]),
        ({"x": X.astype(np.float64)}, ["float64", "float32"]),
        ({"x": X.astype(str)}, ["float32"]),
        ({"x": X[:, None]}, ["'x'", "[3, 1, 12]", "too many axes"]),
        ({"x": X[:, :11]}, ["'x'", "must have length 12, not 11"]),
        ({"x": X[:0]}, ["no samples"]),
        ({"x": X, "labels": np.zeros(2, int)}, ["labels"]),
        ({"x": X, "labels": np.zeros(3)}, ["labels", "integers"]),
        ({"x": X, "labels": np.array([0, -1, 2])}, ["labels", "-1"]),
        ({"x": X * np.nan}, ["'x'", "NaN"]),
        ({"x": X + np.inf}, ["'x'", "infinity"]),
        ({}, ["x"]),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, list) else None,
)
def test_data_that_do_not_fit(arrays, telling, fails, tmp_path):
    bad = tmp_path / "bad.npz"
    np.savez(bad, **arrays)
    fails(1, "bad.npz", *telling, data=bad)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"text" * 99], ids=str)
def test_data_that_cannot_be_read(content, fails, tmp_path):
    bad = tmp_path / "bad.npz"
    bad.write_bytes(content)
    fails(1, "bad.npz", data=bad)


def test_no_data(fails, tmp_path):
    fails(1, "none.npz", "no such file", data=tmp_path / "none.npz")
    (tmp_path / "empty").mkdir()
    fails(1, "empty", data=tmp_path / "empty")
    fails(1, "script.py", data=f"{tmp_path}/script.py:make")


def test_a_script_that_fails(fails, tmp_path):
    (tmp_path / "script.py").write_text("def make():\n    return 1 / 0\n")
    fails(1, "division by zero", data=f"{tmp_path}/script.py:make")
    fails(1, "other", data=f"{tmp_path}/script.py:other")


def test_labels_out_of_range(model, refused, tmp_path):
    bad = tmp_path / "bad.npz"
    np.savez(bad, x=X, labels=np.array([1, 5, 2]))
    ran = refused(1, "label 5", "5 classes", arguments=("evaluate", model, model, "--data", bad))
    assert "subtract 1" in ran.err


def test_data_are_needed(model, refused, tmp_path):
    refused(2, "--data", arguments=("importance", model, "-o", tmp_path / "imp.npz"))
    refused(2, "--data", arguments=("evaluate", model, model))


@pytest.fixture
def measured(model, calib, run, tmp_path):
    path = tmp_path / "imp.npz"
    assert run("importance", model, "--data", calib, "-o", path).code == 0
    return path


def test_importance_of_another_model(measured, calib, refused, tmp_path):
    other = networks.mlp(tmp_path / "other.onnx", seed=9)
    arguments = (other, "-o", tmp_path / "out.onnx", "--importance", measured)
    for command in (("quantize",), ("prune", "--ratio", "0.5")):
        refused(1, "another model", "other.onnx", arguments=(*command, *arguments))


@pytest.mark.parametrize(
    ("spoil", "telling"),
    [
        (lambda a: {"x": X}, "not a file of importance"),
        (lambda a: a | {"about": np.array("no json")}, "not a file of importance"),
        (lambda a: a | {"about": np.array("[1, 2]")}, "not a file of importance"),
        (lambda a: a | {"about": np.array('{"colour": "red"}')}, "not a file of importance"),
        (lambda a: a | {"weight:w0": -a["weight:w0"]}, "w0"),
        (lambda a: a | {"weight:w0": a["weight:w0"] * np.nan}, "w0"),
        (lambda a: a | {"weight:w0": a["weight:w0"].astype(str)}, "w0"),
        (lambda a: a | {"weight:w0": a["weight:w0"][:3]}, "w0"),
        (lambda a: {k: v for k, v in a.items() if k != "weight:w1"}, "w1"),
    ],
    ids=["others", "no json", "list", "unknown", "negative", "nan", "text", "shape", "missing"],
)
def test_importance_that_is_spoilt(spoil, telling, measured, fails):
    arrays = dict(np.load(measured))
    np.savez(measured, **spoil(arrays))
    fails(1, telling, data=None, more=("--importance", measured))


def test_importance_that_cannot_be_read(measured, fails, tmp_path):
    measured.write_bytes(measured.read_bytes()[:400])
    fails(1, "not a file of importance", data=None, more=("--importance", measured))
    fails(1, "no such file", data=None, more=("--importance", tmp_path / "none.npz"))
    fails(1, "not a file of importance", data=None, more=("--importance", tmp_path))


@pytest.mark.parametrize(
    "option", [("--objective", "identity"), ("--probes", "3"), ("--estimator", "exact")], ids=str
)
def test_importance_is_not_measured_twice(option, measured, fails):
    """An option that would have no effect is refused rather than ignored."""
    fails(2, option[0], "measured already", more=("--importance", measured, *option))


def test_damping_is_how_importance_is_used(measured, model, run, tmp_path):
    def quantized(*more):
        arguments = ("--importance", measured, "-q", "--json", *more)
        ran = run("quantize", model, "-o", tmp_path / "out.onnx", *arguments)
        return json.loads(ran.out)["importance"]["damping"], (tmp_path / "out.onnx").read_bytes()

    usual, other = quantized(), quantized("--damping", "0.01")
    assert (usual[0], other[0]) == (1.0, 0.01)
    assert usual[1] != other[1]


@pytest.mark.parametrize(
    ("more", "telling"),
    [
        (("--clusters", "0"), "--clusters"),
        (("--clusters", "1"), "--clusters"),
        (("--clusters", "-4"), "--clusters"),
        (("--clusters", "65537"), "65536"),
        (("--clusters", "many"), "--clusters"),
        (("--ratio", "0"), "--ratio"),
        (("--ratio", "1.5"), "--ratio"),
        (("--ratio", "-0.3"), "--ratio"),
        (("--ratio", "nan"), "share of nan"),
        (("--exclude", "nothing*"), "matches no weight"),
        (("--encoding", "zip"), "byte_lut"),
        (("--encoding", "byte_lut", "--clusters", "400"), "'w0' cannot be stored as 'byte_lut'"),
        (("--encoding", "native_int4"), "opset 17"),
        (("--temperature", "0"), "temperature"),
        (("--temperature", "-1"), "temperature"),
        (("--temperature", "inf"), "temperature"),
        (("--damping", "-1"), "--damping"),
        (("--damping", "nan"), "damping"),
        (("--samples", "0"), "--samples"),
        (("--probes", "0"), "--probes"),
        (("--seed", "-1"), "--seed"),
        (("--threads", "-1"), "--threads"),
        (("--provider", "abacus"), "--provider"),
        (("--objective", "guess"), "fisher"),
        (("--task", "guess"), "classification"),
        (("--colour", "red"), "--colour"),
        (("superfluous",), "superfluous"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)
def test_settings_that_make_no_sense(more, telling, fails):
    fails(2, telling, more=more)


def test_all_weights_excluded(fails):
    fails(1, "no weights to compress besides those excluded", more=("--exclude", "*"))


@pytest.mark.parametrize(
    "arguments", [(), ("wobble",), ("quantize",), ("prune", "m.onnx")], ids=str
)
def test_usage(arguments, run):
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "Usage: onnxrd" in ran.err
