"""Temperature and damping are those that an independent search over real files finds."""

from dataclasses import replace

import numpy as np
import pytest

import onnxrd
from onnxrd.measurement import (
    DAMPINGS,
    HELD_OUT,
    TEMPERATURES,
    best_temperature,
    calibrated_temperature,
    measure_importance,
)
from onnxrd.options import Options
from tests import networks

CLUSTERS = 4


def labelled(path, *, samples=60, labels=True, seed=3):
    """A model and samples with labels that are not always what it would say."""
    model = onnxrd.load_model(path)
    x = networks.normal(samples, 12, seed=seed)
    arrays = {"x": x}
    if labels:
        weights = networks.arrays(path)
        for k in range(3):
            x = np.maximum(x, 0) if k else x
            x = x @ weights[f"w{k}"].T + weights[f"b{k}"]
        noise = networks.rng(seed).gumbel(size=x.shape)
        arrays["labels"] = (x / 3 + noise).argmax(1)  # drawn from the softmax at temperature 3
    return model, onnxrd.load_data(arrays, model.inputs)


def four_levels(weights, h):
    for weight in weights:
        cost = h.damped(weight.name, weight.shape)
        yield onnxrd.quantizers.weighted_kmeans(weight.array(), cost, CLUSTERS)


def compressed(model, importance, held, folder):
    """What a file of four levels does on held-out samples."""
    path = folder / "small.onnx"
    options = Options(force=True)
    onnxrd.quantize(model.path, path, clusters=CLUSTERS, importance=importance, options=options)
    return onnxrd.evaluate(model, onnxrd.load_model(path), held, timed=False)


@pytest.mark.parametrize(("true", "found"), [(3.0, 3.0), (0.5, 1.0), (30.0, 9.0)])
def test_a_temperature_that_labels_were_drawn_at(true, found):
    """Within 1 to 9, however sure or unsure the network should be."""
    logits = 3 * networks.normal(20000, 6)
    labels = (logits / true + networks.rng().gumbel(size=logits.shape)).argmax(1)
    assert calibrated_temperature(logits, labels) == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize("softmax", [False, True])
def test_labels_calibrate(softmax, tmp_path):
    path = networks.mlp(tmp_path / "m.onnx", softmax=softmax)
    model, data = labelled(path, samples=4000)
    assert best_temperature(model, data, Options()) == pytest.approx(3, rel=0.1)
    h = measure_importance(model, data, Options(temperature="auto"))
    assert h.temperature == best_temperature(model, data, Options())


def test_without_labels_the_least_measured_divergence(tmp_path):
    model, data = labelled(networks.mlp(tmp_path / "m.onnx"), labels=False)
    fit, held = data.split(HELD_OUT, 0)
    damage = {}
    for temperature in TEMPERATURES:
        h = onnxrd.fisher(model, fit, estimator=onnxrd.Estimator(temperature=temperature))
        damage[temperature] = compressed(model, h, held, tmp_path).distortion
    assert best_temperature(model, data, Options(), four_levels) == min(damage, key=damage.get)
    assert len(set(damage.values())) > 1


@pytest.mark.parametrize("objective", ["gradient", "hessian"])
def test_damping_that_leaves_the_least_loss(objective, tmp_path):
    model, data = labelled(networks.mlp(tmp_path / "m.onnx"))
    found = measure_importance(model, data, Options(objective=objective), four_levels)
    _, held = data.split(HELD_OUT, 0)
    assert found.samples == data.samples - held.samples
    loss = {
        damping: compressed(model, replace(found, damping=damping), held, tmp_path)
        .heads[0]
        .cross_entropy[1]
        for damping in DAMPINGS
    }
    assert found.damping == min(loss, key=loss.get)
    assert len(set(loss.values())) > 1


def test_damping_that_is_given_is_kept(tmp_path):
    model, data = labelled(networks.mlp(tmp_path / "m.onnx"))
    h = measure_importance(model, data, Options(objective="gradient", damping=0.25))
    assert (h.damping, h.samples) == (0.25, data.samples)


def test_the_damping_of_the_job_at_hand(tmp_path, monkeypatch):
    """Compression tries it with its own quantizer."""
    seen = []

    def noted(model, data, options, quantizer):
        seen.append(quantizer)
        return measure_importance(model, data, options, quantizer)

    monkeypatch.setattr("onnxrd.pipeline.job.measure_importance", noted)
    path = networks.mlp(tmp_path / "m.onnx")
    options = Options(objective="gradient+hessian", samples=None, force=True)
    data = networks.data(tmp_path / "d.npz", samples=12)
    result = onnxrd.prune(path, tmp_path / "s.onnx", keep=0.5, data=data, options=options)
    (quantizer,) = seen
    model = onnxrd.load_model(path)
    weights = [w for w in onnxrd.find_weights(model) if not w.skip]
    h = onnxrd.fisher(model, onnxrd.load_data(data, model.inputs))
    for weight, pruned in zip(weights, quantizer(weights, h)):
        assert np.count_nonzero(pruned.dequantize()) == round(0.5 * weight.size)
    assert result.importance["damping"] in DAMPINGS
    assert result.predicted is None  # squared nats predict no divergence


def test_on_the_command_line(run, refused, model, calib, tmp_path):
    out = tmp_path / "s.onnx"
    arguments = ("quantize", model, "-o", out, "--clusters", "4", "--data", calib)
    for objective in ("gradient", "hessian", "gradient+hessian"):
        ran = run(*arguments, "--objective", objective, "--temperature", "auto", "--force")
        assert ran.code == 0, ran.err
        assert out.exists()
    refused(2, "'warm' is not a valid float", arguments=(*arguments, "--temperature", "warm"))
    auto = ("--temperature", "auto", "--task", "regression")
    refused(2, "none does", arguments=(*arguments, *auto))
    unlabelled = networks.data(tmp_path / "u.npz", labels=False)
    no_labels = (*arguments[:-1], unlabelled, "--objective", "gradient")
    refused(1, "Add an array `labels`", arguments=no_labels)
