"""Importance by forward passes alone, against differences of every class and against autodiff."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto

import onnxrd
from onnxrd.errors import ImportanceError, SettingError
from onnxrd.importance.differences import LADDER, best_step
from onnxrd.importance.finite_difference import fallback_plan, finite_difference
from tests import networks
from tests.importance import small
from tests.importance.brute_force import Compared, importance

X = {"x": networks.normal(12, 12)}
IMAGES = {"x": networks.normal(12, 2, 8, 8)}


def measured(path, data, **settings):
    model = onnxrd.load_model(path)
    settings = {"estimator": onnxrd.Estimator("exact"), **settings}
    return finite_difference(model, onnxrd.load_data(data, model.inputs), **settings)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_entry_by_entry_it_is_what_brute_force_finds(task, tmp_path):
    path = networks.mlp(tmp_path / "m.onnx", sizes=(12, 10, 8, 5))
    h = measured(path, X, task=task)
    assert (h.method, h.grouped, h.proxies) == ("finite-difference", {}, {})
    heads = [Compared(task="values" if task == "regression" else "logits")]
    for name, values in h.values.items():
        flats = range(values.size)
        expected = importance(path, name, X, flats, heads=heads, step=1e-5, double=True)
        error = np.abs(values.ravel() - expected)
        assert np.median(error[expected > 0] / expected[expected > 0]) < 1e-3, name
        assert error.sum() < 0.02 * expected.sum(), name


@pytest.mark.parametrize("kind", ["rademacher", "sampled"])
def test_it_draws_the_same_probes_as_autodiff(kind, tmp_path):
    """The estimates are noisy, and equal."""
    path = networks.cnn(tmp_path / "m.onnx", activation="Tanh", pool="AveragePool")
    estimator = onnxrd.Estimator(kind, probes=2, seed=3)
    h = measured(path, IMAGES, estimator=estimator, names=["c1", "w"])
    expected = small.measured(path, IMAGES, estimator=estimator)
    for name, values in h.values.items():
        atol = 1e-3 * float(values.mean())
        np.testing.assert_allclose(values, expected.values[name], rtol=0.02, atol=atol)


NETWORKS = {
    "tied": (small.tied, X),
    "pixels": (small.pixels, {"x": networks.normal(5, 2, 6, 6)}),
    "attention": (small.attention, {"x": networks.normal(6, 4, 8)}),
    "two heads": (small.two_heads, X),
    "old softmax": (small.old_softmax, X),
    "two inputs": (
        small.two_inputs,
        {"ids": networks.rng().integers(0, 20, (10, 3)), "z": networks.normal(10, 5, seed=3)},
    ),
    "function": (lambda folder: networks.with_function(folder / "m.onnx"), X),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_many_shapes(name, tmp_path):
    make, data = NETWORKS[name]
    path = make(tmp_path)
    h, expected = measured(path, data), small.exact(path, data)
    assert set(h.values) == set(expected.values)
    for key, values in expected.values.items():
        error = np.abs(h.values[key] - values).sum() / values.sum()
        assert error < 0.01, (key, error)


@pytest.mark.parametrize("batch", [1, 5])
def test_batches_of_a_fixed_size(batch, tmp_path):
    sizes = (12, 8, 5)
    fixed = measured(networks.mlp(tmp_path / "fixed.onnx", sizes=sizes, batch=batch), X)
    free = measured(networks.mlp(tmp_path / "free.onnx", sizes=sizes), X)
    assert fixed.path == f"batches of {batch}"
    for name, values in free.values.items():
        assert np.abs(fixed.values[name] - values).sum() < 0.02 * values.sum()


def test_calls_without_an_axis_of_samples(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx", sizes=(12, 8, 5))
    calls = [{"x": networks.normal(3, 12, seed=k)} for k in range(4)]
    h, expected = measured(path, calls), small.exact(path, calls)
    assert h.samples == 4
    for name, values in expected.values.items():
        assert np.abs(h.values[name] - values).sum() < 0.02 * values.sum()


@pytest.mark.parametrize("group", ["channel", "tensor"])
def test_sums_of_groups_are_unbiased(group, tmp_path, monkeypatch):
    """100 estimates of each sum: their mean lies within its standard error, as often as it should.

    A group's members share it equally.
    """
    if group == "tensor":
        monkeypatch.setattr("onnxrd.importance.finite_difference.MOST_CHANNELS", 1)
    path = networks.cnn(tmp_path / "m.onnx", activation="Tanh", pool="AveragePool")
    images = {"x": IMAGES["x"][:1]}
    h = small.exact(path, images).values["c1"]  # [8, 2, 3, 3]
    sums = h.sum((1, 2, 3)) if group == "channel" else np.array([h.sum()])
    found = []
    for seed in range(10):
        estimator = onnxrd.Estimator("exact", seed=seed)
        settings = {"exact_up_to": 10, "directions": 10, "names": ["c1"], "estimator": estimator}
        once = measured(path, images, **settings)
        assert once.grouped == {"c1": group}
        rows = once.values["c1"].reshape(len(sums), -1)
        assert (rows == rows[:, :1]).all()
        found.append(rows.sum(axis=1))
    error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    z = (np.mean(found, axis=0) - sums) / error
    assert (np.abs(z) < 4).all() and (z**2).mean() < 3, z
    assert (error < 0.2 * sums).all()  # so that this proves something


def test_only_the_weights_asked_for(tmp_path, model):
    assert list(measured(model, X, names=["w2"]).values) == ["w2"]
    with pytest.raises(SettingError, match="nonsense"):
        measured(model, X, names=["nonsense"])
    with pytest.raises(SettingError, match="directions"):
        measured(model, X, directions=0)


def test_a_weight_without_influence_has_none(tmp_path):
    """What only an index depends on, which is not compared."""
    nodes = [
        networks.node("MatMul", ["x", "w"], ["y"]),
        networks.node("MatMul", ["x", "v"], ["a"]),
        networks.node("ArgMax", ["a"], ["chosen"], axis=1),
    ]
    weights = {"w": networks.normal(12, 6), "v": networks.normal(12, 6, seed=1)}
    outputs = {"y": ["N", 6], "chosen": (TensorProto.INT64, ["N", 1])}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, {"x": ["N", 12]}, outputs)
    h = measured(path, X)
    assert (h.values["w"] > 0).all() and not h.values["v"].any()


def test_outputs_that_are_not_finite(tmp_path, model):
    with pytest.raises(ImportanceError, match="scale"):
        measured(model, {"x": np.full((3, 12), 3e38, np.float32)})


def test_the_step_lies_where_neighbours_agree_best():
    """An error of rounding ∝ 1/ε, and one of curvature ∝ ε²."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (len(LADDER), 40, 6))
    for best in (1e-3, 1e-2, 1e-1):
        bent = (LADDER / best)[:, None, None] ** 2 * np.ones((1, 40, 6))
        slopes = 5 + 0.01 * (best / LADDER[:, None, None] * signs + bent)
        assert best / 4 <= best_step(LADDER, slopes) <= 4 * best
    assert LADDER[2] < best_step(LADDER, np.zeros((len(LADDER), 3, 2))) < LADDER[4]


def test_a_fallback_is_as_fine_as_its_price_allows(tmp_path):
    model = onnxrd.load_model(networks.mlp(tmp_path / "m.onnx", sizes=(100, 50, 5)))
    weights = [w for w in onnxrd.find_weights(model) if not w.skip]  # [50, 100] and [5, 50]
    many = [replace(weights[0], name=f"w{k}") for k in range(1000)]

    def groups(weights, samples):
        return [(p.group, p.samples) for p in fallback_plan(weights, samples)]

    assert groups(weights, 512) == [("channel", 40), ("channel", 409)]
    assert groups(weights[1:], 512) == [("", 16)]
    assert groups(weights, 10_000) == [("channel", 800), ("", 160)]
    assert groups(many[:100], 512) == [("tensor", 40)] * 100
    assert groups(many, 512) == []
    for chosen, samples in ((weights, 512), (many[:100], 512), (weights, 3)):
        spent = sum(p.samples * len(p.regions) for p in fallback_plan(chosen, samples))
        assert spent <= max(8 * samples, 4096)
