"""Squared gradients and second derivatives of the loss are what brute force finds."""

import numpy as np
import pytest

import onnxrd
from onnxrd.importance import Estimator, supervised
from tests import networks
from tests.importance import small
from tests.importance.brute_force import Compared, importance
from tests.importance.labelled import derivatives

EXACT = Estimator("exact")
LABELS = networks.rng(5).integers(0, 5, 12)
FEEDS = {"x": networks.normal(12, 12)}


def measured(path, objective, feeds=FEEDS, labels=LABELS, **settings):
    model = onnxrd.load_model(path)
    data = onnxrd.load_data({**feeds, "labels": labels}, model.inputs)
    return supervised(model, data, objective, **{"estimator": EXACT, **settings})


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, values in expected.items():
        atol = 1e-5 * float(np.abs(values).mean())
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=atol, err_msg=name)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_every_sample_of_a_piecewise_linear_network(softmax, batched, temperature, tmp_path):
    path = networks.mlp(tmp_path / "m.onnx", softmax=softmax)
    settings = {"batched": batched, "estimator": Estimator("exact", temperature=temperature)}
    both = measured(path, "gradient+hessian", **settings)
    assert (both.path == "batched") == batched
    assert not both.gauss_newton
    logits = path if not softmax else networks.mlp(tmp_path / "logits.onnx")
    found = {
        name: derivatives(logits, name, FEEDS, LABELS, temperature=temperature)
        for name in both.values
    }
    assert_equal(both.values, {name: (g**2).mean(0) for name, (g, _) in found.items()})
    assert_equal(both.quartic, {name: (b**2).mean(0) for name, (_, b) in found.items()})
    assert_equal(
        measured(path, "hessian", **settings).values,
        {name: b.mean(0) for name, (_, b) in found.items()},
    )
    gradient = measured(path, "gradient", **settings)
    assert_equal(gradient.values, both.values)
    assert not gradient.quartic


def test_a_class_for_each_position(tmp_path):
    """The loss of a sample is the mean over its positions."""
    nodes = [
        networks.node("MatMul", ["x", "w"], ["a"]),
        networks.node("Relu", ["a"], ["r"]),
        networks.node("MatMul", ["r", "v"], ["z"]),
        networks.node("Softmax", ["z"], ["y"], axis=-1),
    ]
    weights = {"w": networks.normal(9, 12), "v": networks.normal(12, 8, seed=1)}
    path = networks.save(
        tmp_path / "m.onnx", nodes, weights, {"x": ["N", 4, 9]}, {"y": ["N", 4, 8]}
    )
    feeds = {"x": networks.normal(6, 4, 9)}
    labels = networks.rng().integers(0, 8, (6, 4))
    both = measured(path, "gradient+hessian", feeds, labels)
    found = {n: derivatives(path, n, feeds, labels, probabilities=True) for n in both.values}
    assert_equal(both.values, {name: (g**2).mean(0) for name, (g, _) in found.items()})
    assert_equal(both.quartic, {name: (b**2).mean(0) for name, (_, b) in found.items()})


def test_a_fixed_batch_and_calls(tmp_path):
    """Samples that fill up a batch do not count, and a call without a sample axis is a sample."""
    free = networks.mlp(tmp_path / "free.onnx")
    fixed = networks.mlp(tmp_path / "fixed.onnx", batch=5)
    expected = measured(free, "gradient+hessian")
    for found in (
        measured(fixed, "gradient+hessian"),
        measured(fixed, "gradient+hessian", batched=False),
    ):
        assert_equal(found.values, expected.values)
        assert_equal(found.quartic, expected.quartic)
    model = onnxrd.load_model(free)
    calls = [{"x": FEEDS["x"][k : k + 1], "labels": LABELS[k : k + 1]} for k in range(12)]
    data = onnxrd.load_data(calls, model.inputs)
    found = supervised(model, data, "gradient+hessian", estimator=EXACT)
    assert_equal(found.values, expected.values)
    assert_equal(found.quartic, expected.quartic)


@pytest.mark.parametrize("probes", [1, 3])
def test_random_probes_are_unbiased(probes, tmp_path):
    """Also of the squares, where the variance of a probe must not count (it would be a half)."""
    path = networks.mlp(tmp_path / "m.onnx", sizes=(12, 10, 9))
    x, labels = np.tile(FEEDS["x"][:6], (400, 1)), np.tile(LABELS[:6], 400)
    exact = measured(path, "gradient+hessian", {"x": x[:6]}, labels[:6])
    drawn = measured(path, "gradient+hessian", {"x": x}, labels, estimator=Estimator(probes=probes))
    assert drawn.probes == max(probes, 2)
    for name, values in exact.quartic.items():
        assert abs(drawn.quartic[name].sum() / values.sum() - 1) < 0.15


def test_a_smooth_network_says_where_it_bends(tmp_path):
    """Gauss–Newton stands in for the second derivatives, and it says for which weights."""
    path = small.two_heads(tmp_path)
    h = measured(path, "gradient+hessian")
    assert h.gauss_newton == {"w": "Tanh"}  # v comes after it
    bent = measured(path, "hessian")
    for name in ("w", "v"):
        gradient, second = derivatives(path, name, FEEDS, LABELS, probabilities=True)
        np.testing.assert_allclose(h.values[name], (gradient**2).mean(0), rtol=1e-4, atol=1e-9)
        fisher = importance(
            path,
            name,
            FEEDS,
            range(gradient[0].size),
            step=1e-5,
            double=True,
            heads=[Compared(task="probabilities")],
        )
        np.testing.assert_allclose(bent.values[name].ravel(), fisher, rtol=1e-3, atol=1e-8)
        exact = np.allclose(bent.values[name], second.mean(0), rtol=1e-3, atol=1e-8)
        assert exact == (name == "v")


def test_labels_are_needed_and_must_fit(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    model = onnxrd.load_model(path)
    for labels, message in (
        (None, "have none"),
        (LABELS + 3, "not below the 5 classes"),
        (np.stack([LABELS, LABELS], 1), "2 labels for each sample"),
    ):
        given = FEEDS if labels is None else {**FEEDS, "labels": labels}
        data = onnxrd.load_data(given, model.inputs)
        with pytest.raises(onnxrd.CalibrationError, match=message):
            supervised(model, data, "gradient")
    data = onnxrd.load_data({**FEEDS, "labels": LABELS}, model.inputs)
    with pytest.raises(onnxrd.ImportanceError, match="0 outputs that classify"):
        supervised(model, data, "gradient", task="regression")


def test_saved_and_loaded(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    h = measured(path, "gradient+hessian")
    h.save(str(tmp_path / "h.npz"))
    again = onnxrd.load_importance(str(tmp_path / "h.npz"), onnxrd.load_model(path))
    assert again.about() == h.about()
    for name in h.values:
        np.testing.assert_array_equal(again.values[name], h.values[name])
        np.testing.assert_array_equal(again.quartic[name], h.quartic[name])
    assert not h.in_nats
    assert measured(path, "hessian").in_nats
