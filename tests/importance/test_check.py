"""The referee: it lets right rules pass, and finds wrong ones."""

import json

import numpy as np
import pytest

import onnxrd
from onnxrd.autodiff.registry import REVERSE
from onnxrd.importance.check import check
from tests import networks
from tests.importance import small
from tests.importance.test_fisher import beyond_det


def checked(path, data):
    model = onnxrd.load_model(path)
    return check(model, onnxrd.load_data(data, model.inputs))


@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_right_rules_agree(activation, tmp_path):
    path = networks.cnn(tmp_path / "m.onnx", activation=activation)
    found = checked(path, {"x": networks.normal(6, 2, 8, 8)})
    assert [each.name for each in found] == ["c1", "c2", "c3", "w"]
    for each in found:
        assert each.agrees and each.entries == 16
        assert each.median < 0.02 and each.ratio == pytest.approx(1, abs=0.1)


def test_a_wrong_rule_is_found(tmp_path, monkeypatch):
    """A derivative of tanh that is a little too large; it comes once before all that lies there."""
    right = REVERSE["", "Tanh"]

    def wrong(tape, step, cotangents, wanted):
        found = right(tape, step, cotangents, wanted)
        return {slot: tape.op("Mul", value, tape.const(1.1)) for slot, value in found.items()}

    monkeypatch.setitem(REVERSE, ("", "Tanh"), wrong)
    found = checked(small.two_heads(tmp_path), {"x": networks.normal(12, 12)})
    agrees = {each.name: each.agrees for each in found}
    assert agrees == {"w": False, "v": True, "u": True}
    assert found[0].ratio == pytest.approx(1 / 1.1**2, rel=0.02)


def test_what_has_no_derivative_is_not_compared(tmp_path):
    path, data = beyond_det(tmp_path)
    first, second = checked(path, data)
    assert "Det" in first.why_not and first.agrees
    assert second.entries == 16 and second.median < 0.01


def test_on_the_command_line(model, calib, run, refused, monkeypatch, tmp_path):
    ran = run("importance", model, "--data", calib, "--check")
    assert ran.code == 0
    assert "agree in 3 of 3 weights" in ran.out
    document = json.loads(run("importance", model, "--data", calib, "--check", "--json").out)
    assert document["agree"] and [w["name"] for w in document["weights"]] == ["w0", "w1", "w2"]
    monkeypatch.setattr("onnxrd.importance.check.AGREE", 0.0)
    ran = run("importance", model, "--data", calib, "--check")
    assert ran.code == 4
    assert "DIFFERS" in ran.out and "w1" in ran.err
    out = tmp_path / "imp.npz"
    refused(2, "--check", arguments=("importance", model, "--data", calib))
    refused(2, "--check", arguments=("importance", model, "--data", calib, "--check", "-o", out))
    refused(2, "--data", arguments=("importance", model, "--check"))
    labelled = ("importance", model, "--data", calib, "--check", "--objective", "gradient")
    refused(2, "fisher", arguments=labelled)


def test_the_method_on_the_command_line(model, calib, run, tmp_path):
    kept, again = tmp_path / "imp.npz", tmp_path / "again.npz"
    command = ("importance", model, "--data", calib, "--samples", 8, "-o")
    assert run(*command, kept).code == 0
    settings = ("--method", "finite-difference", "--exact-up-to", 500)
    ran = run(*command, again, *settings, "--json")
    assert ran.code == 0
    document = json.loads(ran.out)
    assert document["method"] == "finite-difference"
    assert document["grouped"] == {"w1": "channel"}
    loaded = onnxrd.load_model(model)
    fine, coarse = (onnxrd.load_importance(path, loaded) for path in (kept, again))
    for name in ("w0", "w2"):
        error = np.abs(fine.values[name] - coarse.values[name]).sum()
        assert error < 0.1 * fine.values[name].sum()
    shown = run(*command, again, *settings).out
    assert "finite difference, by channel" in shown
    out = tmp_path / "out.onnx"
    assert run("quantize", model, "--importance", again, "-o", out, "--clusters", 4).code == 0
