"""The golden rules of files: ours keep them, those of other tools do not."""

import json

import numpy as np
import pytest

import onnxrd
from onnxrd import quantizers
from onnxrd.diagnosis import golden_rules
from onnxrd.importance import Importance
from onnxrd.report.theory import _worst
from tests import networks
from tests.graph.test_stored import by_another_tool, renamed, two_products
from tests.pipeline.decoded import weights_of

FORCED = onnxrd.Options(force=True)


def importance_of(path):
    """Any will do; a third of it is zero."""
    model = onnxrd.load_model(path)
    values = {}
    for k, weight in enumerate(w for w in onnxrd.find_weights(model) if not w.skip):
        values[weight.name] = networks.normal(*weight.shape, seed=k) ** 2
        values[weight.name].reshape(-1)[::3] = 0
    return Importance(values, model.digest, task="classification", damping=0.5)


def rules_of(path, out, h):
    return golden_rules(onnxrd.load_model(path), onnxrd.load_model(out), h)


@pytest.mark.parametrize("make", [networks.mlp, networks.cnn])
def test_kmeans_keeps_both_rules(make, tmp_path):
    path, out = make(tmp_path / "m.onnx"), tmp_path / "out.onnx"
    h = importance_of(path)
    onnxrd.quantize(path, out, clusters=4, importance=h, options=FORCED)
    rules = rules_of(path, out, h)
    assert not rules.missing and len(rules.layers) == len(h.values)
    for layer in rules.layers:
        assert abs(layer.rule1) < 1e-6
        assert abs(layer.rule2) < 1e-6
        assert layer.constraint == "4 levels"
    assert abs(rules.rule1) < 1e-6


def test_vectors_are_seen_in_the_file_and_keep_both_rules(tmp_path):
    path, out = networks.mlp(tmp_path / "m.onnx"), tmp_path / "out.onnx"
    h = importance_of(path)
    result = onnxrd.quantize(path, out, clusters=8, vector=4, importance=h, options=FORCED)
    kinds = {
        f"{w.levels} vectors of {w.together}".replace("vectors of 1", "levels")
        for w in result.layers
    }
    layers = rules_of(path, out, h).layers
    assert {layer.constraint for layer in layers} == kinds
    assert any("vectors of" in kind for kind in kinds)
    for layer in layers:
        assert abs(layer.rule1) < 1e-5
        assert abs(layer.rule2) < 0.02  # a local minimum: another start may find another one


def test_pruning_keeps_both_rules(model, tmp_path):
    h, out = importance_of(model), tmp_path / "out.onnx"
    onnxrd.prune(model, out, keep=0.3, importance=h, options=FORCED)
    rules = rules_of(model, out, h)
    assert [layer.rule1 for layer in rules.layers] == [0, 0, 0]
    assert max(abs(layer.rule2) for layer in rules.layers) < 1e-12
    assert {layer.constraint for layer in rules.layers} <= {"30.0% kept"}


def test_pruning_and_quantizing_keeps_both_rules(model, tmp_path):
    h, out = importance_of(model), tmp_path / "out.onnx"
    onnxrd.quantize(model, out, clusters=4, keep=0.25, importance=h, options=FORCED)
    for layer in rules_of(model, out, h).layers:
        assert abs(layer.rule1) < 1e-6 and abs(layer.rule2) < 1e-6
        assert layer.constraint == "4 levels, 25.0% kept"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rounding_by_another_tool_keeps_neither(tmp_path):
    """The figures are those of the definition, on the weights that onnxruntime decodes."""
    path, out = two_products(tmp_path / "m.onnx"), tmp_path / "out.onnx"
    by_another_tool("blocks", path, out)
    h = importance_of(path)
    rules = rules_of(path, out, h)
    assert {layer.name for layer in rules.layers} == {"w", "v"}
    for layer in rules.layers:
        assert 1e-4 < abs(layer.rule1) < 0.1
        assert layer.rule2 is None or layer.rule2 > 1e-4
    assert 1e-4 < abs(rules.rule1) < 0.1


def test_the_figures_are_those_of_the_definitions(model, tmp_path, monkeypatch):
    """A file quantized without importance, and held against one."""
    monkeypatch.setattr("onnxrd.diagnosis.CHUNK", 100)
    h, out = importance_of(model), tmp_path / "out.onnx"
    onnxrd.quantize(model, out, clusters=6, options=FORCED)
    rules = rules_of(model, out, h)
    original = networks.arrays(model)
    pulls, energies, excesses, wholes = [], [], [], []
    for name, found in weights_of(out, list(h.values)).items():
        cost = h.values[name] + 0.5 * h.values[name].mean(dtype=np.float64)
        w, v = (a.astype(np.float64) for a in (original[name], found))
        best = quantizers.weighted_kmeans(original[name], cost, 6).dequantize()
        pulls.append((cost * v * (w - v)).sum())
        energies.append((cost * v * v).sum())
        excesses.append((cost * (w - v) ** 2).sum() - (cost * (w - best) ** 2).sum())
        wholes.append((cost * w * w).sum())
        (layer,) = [layer for layer in rules.layers if layer.name == name]
        assert layer.rule1 == pytest.approx(pulls[-1] / energies[-1], rel=1e-4)
        assert layer.rule2 == pytest.approx(excesses[-1] / wholes[-1], rel=1e-4)
        assert layer.rule2 > 0.001
        assert layer.predicted == pytest.approx((h.values[name] * (w - v) ** 2).sum() / 2)
    assert rules.rule1 == pytest.approx(sum(pulls) / sum(energies), rel=1e-4)
    assert rules.rule2 == pytest.approx(sum(excesses) / sum(wholes), rel=1e-4)
    worst = rules.worst
    assert abs(worst[0].rule1) == max(abs(layer.rule1) for layer in rules.layers)
    assert worst[1].rule2 == max(layer.rule2 for layer in rules.layers)


def test_levels_of_each_channel(tmp_path):
    """Per-channel codebooks are held against per-channel codebooks."""
    path = networks.mlp(tmp_path / "m.onnx", sizes=(64, 100, 5))
    model = onnxrd.load_model(path)
    w = networks.arrays(path)["w0"]  # [100, 64]
    h = importance_of(path)
    cost = h.damped("w0", w.shape)
    best = np.stack([quantizers.weighted_kmeans(a, c, 5).dequantize() for a, c in zip(w, cost)])
    out = networks.replace(networks.mlp(tmp_path / "o.onnx", sizes=(64, 100, 5)), "w0", best)
    layer = golden_rules(model, onnxrd.load_model(out), h).layers[0]
    assert layer.constraint == "5 levels a channel"
    assert abs(layer.rule1) < 1e-6 and abs(layer.rule2) < 1e-9
    longer = networks.replace(out, "w0", 1.1 * best)
    layer = golden_rules(model, onnxrd.load_model(longer), h).layers[0]
    assert layer.rule1 == pytest.approx(1 / 1.1 - 1, rel=1e-4)
    assert layer.rule2 > 0.005


def test_what_is_unchanged_or_missing(model, tmp_path):
    h = importance_of(model)
    same = rules_of(model, model, h)
    assert [(w.constraint, w.rule1, w.rule2) for w in same.layers] == [("unchanged", 0, 0)] * 3
    other = networks.save(
        tmp_path / "other.onnx",
        [networks.node("MatMul", ["x", "w0"], ["y"])],
        {"w0": networks.normal(12, 5)},
        {"x": ["N", 12]},
        {"y": ["N", 5]},
    )
    rules = rules_of(model, other, h)
    assert (rules.layers, rules.worst, rules.rule1) == ((), None, 0)
    assert rules.missing == ("w0", "w1", "w2")


def test_on_the_command_line(model, calib, run, tmp_path):
    out, kept = tmp_path / "out.onnx", tmp_path / "imp.npz"
    assert run("importance", model, "--data", calib, "-o", kept, "-q").code == 0
    assert run("quantize", model, "--importance", kept, "-o", out, "--clusters", 4).code == 0
    command = ("evaluate", model, out, "--data", calib)
    document = json.loads(run(*command, "--importance", kept, "--json").out)["golden_rules"]
    assert abs(document["rule1"]) < 1e-6 and abs(document["rule2"]) < 1e-6
    assert [layer["name"] for layer in document["layers"]] == ["w0", "w1", "w2"]
    measured = json.loads(run(*command, "--json").out)["golden_rules"]
    assert measured == document  # the same samples, the same seed
    shown = run(*command, "--importance", kept).out
    assert "rule 1 holds in every layer" in shown and "4 levels" in shown
    assert json.loads(run(*command, "--no-rules", "--json").out)["golden_rules"] is None


def test_without_importance(model, calib, run, tmp_path, monkeypatch):
    """Where it cannot be measured in passing, that is said and the rest goes on."""
    out = tmp_path / "out.onnx"
    assert run("quantize", model, "--data", calib, "-o", out, "--clusters", 4).code == 0
    monkeypatch.setattr("onnxrd.cli.commands.evaluate.LARGE", 100)
    ran = run("evaluate", model, out, "--data", calib, "--json")
    assert ran.code == 0 and "--importance" in ran.err
    document = json.loads(ran.out)
    assert document["golden_rules"] is None and document["samples"] == 40


def test_the_worst_layer_is_named(model, calib, run, tmp_path):
    out = renamed(model, tmp_path / "out.onnx", {"w1": "w1"})  # twice as long
    shown = run("evaluate", model, out, "--data", calib).out
    assert "rule 1 is violated most by w1: times 0.5 it would have 100% less distortion" in shown


def test_what_mending_would_gain_is_a_share_of_what_is_damped(model, tmp_path):
    """Where measured importance is zero, a layer's distortion is less than the damped gain."""
    h, out = importance_of(model), tmp_path / "out.onnx"
    h.values["w1"][:] = 0
    h.values["w1"][0, 0] = 1
    w = networks.arrays(model)["w1"]
    rough = np.where(w > 0, 1, -1).astype(np.float32)
    rough[0, 0] = w[0, 0]
    networks.replace(networks.mlp(out), "w1", rough)
    rules = rules_of(model, out, h)
    layer = next(layer for layer in rules.layers if layer.name == "w1")
    assert layer.predicted == 0 < layer.excess < layer.spent
    error = w.astype(np.float64) - rough
    assert layer.spent == pytest.approx((h.damped("w1", w.shape) * error**2).sum() / 2)
    lines = str(_worst(rules))
    assert f"would have {100 * layer.excess / layer.spent:.3g}% less distortion by damped" in lines
