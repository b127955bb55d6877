"""Exact importance is what central differences find, for networks of many shapes."""

from pathlib import Path

import numpy as np
import pytest

import onnxrd
from tests import networks
from tests.importance import small
from tests.importance.brute_force import Compared, importance

MODELS = Path(__file__).resolve().parents[2] / "models"

X = {"x": networks.normal(12, 12)}
IMAGES = {"x": networks.normal(12, 2, 8, 8)}
CLASSES = [Compared()]


def check(path, feeds, *, heads=None, rtol=1e-3, settings=None, **oracle):
    """Every entry of every weight."""
    h = small.exact(path, feeds, **(settings or {}))
    assert not h.proxies
    for name, values in h.values.items():
        expected = importance(path, name, feeds, range(values.size), heads=heads, **oracle)
        atol = rtol * float(values.mean())
        np.testing.assert_allclose(values.ravel(), expected, rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_fully_connected_layers(task, softmax, tmp_path):
    form = "values" if task == "regression" else "probabilities" if softmax else "logits"
    path = networks.mlp(tmp_path / "m.onnx", softmax=softmax)
    exactly = {"step": 1e-5, "double": True, "rtol": 1e-4}
    check(path, X, heads=[Compared(task=form)], settings={"task": task}, **exactly)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_convolutions(task, tmp_path):
    """Strided, grouped, with batch normalisation, a residual sum and pooling; smooth."""
    path = networks.cnn(tmp_path / "m.onnx", activation="Tanh", pool="AveragePool")
    form = "values" if task == "regression" else "logits"
    check(path, IMAGES, heads=[Compared(task=form)], settings={"task": task})


def test_convolutions_with_kinks(tmp_path):
    """ReLU and max pooling: a step crosses a kink now and then, so only the sum is compared."""
    path = networks.cnn(tmp_path / "m.onnx")
    h = small.exact(path, IMAGES)
    for name, values in h.values.items():
        expected = importance(path, name, IMAGES, range(values.size), step=5e-4)
        assert np.abs(values.ravel() - expected).sum() < 0.01 * expected.sum(), name


def test_a_weight_used_twice(tmp_path):
    """Its gradients add up before they are squared."""
    path = small.tied(tmp_path)
    assert small.exact(path, X).path == "batched"
    check(path, X, step=1e-5, double=True, rtol=1e-4)


def test_a_class_for_each_pixel(tmp_path):
    path = small.pixels(tmp_path)
    heads = [Compared(task="probabilities", axis=1)]
    check(path, {"x": networks.normal(5, 2, 6, 6)}, heads=heads)


def test_several_inputs(tmp_path):
    ids = networks.rng().integers(0, 20, (10, 3))
    feeds = {"ids": ids, "z": networks.normal(10, 5, seed=3)}
    path = small.two_inputs(tmp_path)
    check(path, feeds)
    h = small.exact(path, feeds).values["table"]
    assert ((h == 0).all(1) == ~np.isin(np.arange(20), ids)).all()  # rows that no sample reads


def test_attention(tmp_path):
    """Three uses of a value, softmax within and at the end, a class for each position."""
    path = small.attention(tmp_path)
    check(path, {"x": networks.normal(6, 4, 8)}, heads=[Compared(task="probabilities")])


def test_two_heads_add_up(tmp_path):
    heads = [Compared(task="probabilities"), Compared("second", "values")]
    path = small.two_heads(tmp_path)
    assert small.exact(path, X).task == "classification+regression"
    check(path, X, heads=heads)


def test_softmax_before_opset_13(tmp_path):
    path = small.old_softmax(tmp_path)
    h = small.exact(path, X)
    flat = importance(path, "w", X, range(60), heads=[Compared(task="probabilities", flat=True)])
    np.testing.assert_allclose(h.values["w"].ravel()[:60], flat, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_temperature(temperature, tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    estimator = onnxrd.Estimator("exact", temperature=temperature)
    h = small.measured(path, X, estimator=estimator)
    heads = [Compared(temperature=temperature)]
    for name, values in h.values.items():
        flats = range(0, values.size, 7)
        expected = importance(path, name, X, flats, heads=heads, step=1e-5, double=True)
        atol = 1e-6 * float(values.mean())
        np.testing.assert_allclose(values.ravel()[flats], expected, rtol=1e-4, atol=atol)


def test_data_without_an_axis_of_samples(tmp_path):
    """A call is a sample, and all that it gives out are its positions (or its outputs)."""
    path = networks.mlp(tmp_path / "m.onnx")
    calls = [{"x": networks.normal(3, 12, seed=k)} for k in range(4)]
    together = {"x": np.concatenate([call["x"] for call in calls])}
    for task, times in (("classification", 1), ("regression", 3)):
        h = small.exact(path, calls, task=task)
        assert (h.samples, h.path) == (4, "one sample at a time: the data have no sample axis")
        rows = small.exact(path, together, task=task)
        for name, values in rows.values.items():
            np.testing.assert_allclose(h.values[name], times * values, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("name", "rtol"), [("mnist_mlp", 0.02), ("cifar10_cnn", 0.05)])
def test_our_networks(name, rtol):
    """Coordinates of every weight, more often those that matter."""
    path = MODELS / f"{name}.onnx"
    model = onnxrd.load_model(path)
    data = onnxrd.load_data(MODELS / f"{name}_calib.npz", model.inputs, samples=16)
    h = onnxrd.fisher(model, data, estimator=onnxrd.Estimator("exact"))
    (batch,) = data.batches(16)
    rng = np.random.default_rng(1)
    for key, values in h.values.items():
        share = values.ravel() / values.sum(dtype=np.float64)
        flats = rng.choice(values.size, 4, p=share)
        step = 0.02 * float(networks.arrays(path)[key].std())
        expected = importance(path, key, batch.feeds, flats, heads=[Compared("logits")], step=step)
        np.testing.assert_allclose(values.reshape(-1)[flats], expected, rtol=rtol, err_msg=key)
