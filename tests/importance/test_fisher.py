"""Importance against brute force: central differences of every class's log-probability."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxrd
from onnxrd.errors import ImportanceError, SettingError
from onnxrd.graph.session import Session
from onnxrd.importance import Importance, identity, load_importance
from tests import networks

MODELS = Path(__file__).resolve().parents[2] / "models"
STEP = 5e-4


def moved(path, name, flat, step):
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor).copy()
            array.reshape(-1)[flat] += step
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return model


def brute_force(path, feeds, name, flat, task="classification"):
    """E_x Σ_k (∂f_k)²/f_k, or 2 E_x Σ_k (∂f_k)², of one weight by central differences."""
    import onnx_ir as ir

    outputs = []
    for step in (STEP, -STEP):
        session = Session(ir.from_proto(moved(path, name, flat, step)), level="disable")
        outputs.append(session.run(feeds)["y"].astype(np.float64))
    if task == "regression":
        return float(2 * (((outputs[0] - outputs[1]) / (2 * STEP)) ** 2).sum(-1).mean())
    logs = [o - np.log(np.exp(o).sum(-1, keepdims=True)) for o in outputs]
    slope = (logs[0] - logs[1]) / (2 * STEP)
    return float((np.exp((logs[0] + logs[1]) / 2) * slope**2).sum(-1).mean())


@pytest.fixture(params=["mlp", "cnn"])
def case(request, tmp_path):
    if request.param == "mlp":
        path = networks.mlp(tmp_path / "m.onnx")
        return path, networks.data(tmp_path / "d.npz", samples=12)
    path = networks.cnn(tmp_path / "m.onnx")
    return path, networks.data(tmp_path / "d.npz", samples=12, shape=(2, 8, 8), classes=7)


def measure(case, **settings):
    path, data = case
    model = onnxrd.load_model(path)
    return onnxrd.fisher(model, onnxrd.load_data(data, model.inputs), **settings)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_exact_importance_is_what_brute_force_finds(case, task):
    h = measure(case, estimator=onnxrd.Estimator("exact"), task=task)
    feeds = {"x": np.load(case[1])["x"]}
    rng = np.random.default_rng(0)
    for name, values in h.values.items():
        flats = rng.permutation(values.size)[:6]
        expected = np.array([brute_force(case[0], feeds, name, f, task) for f in flats])
        np.testing.assert_allclose(
            values.reshape(-1)[flats], expected, rtol=0.02, atol=0.01 * values.mean()
        )


@pytest.mark.parametrize(("kind", "tolerance"), [("rademacher", 0.12), ("sampled", 0.2)])
def test_probes_converge_to_the_exact_sum(case, kind, tolerance):
    exact = measure(case, estimator=onnxrd.Estimator("exact"))
    probed = measure(case, estimator=onnxrd.Estimator(kind, probes=64))
    for name, values in exact.values.items():
        error = np.abs(probed.values[name] - values).sum() / values.sum()
        assert error < tolerance, (name, error)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_batched_equals_one_at_a_time(case, task):
    together, alone = (measure(case, task=task, batched=b) for b in (True, False))
    assert together.path == "batched"
    assert alone.path.startswith("one sample at a time")
    for name, values in alone.values.items():
        np.testing.assert_allclose(together.values[name], values, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("batch", [1, 4, 5])
def test_a_fixed_batch_gives_the_same(batch, tmp_path):
    data = networks.data(tmp_path / "d.npz", samples=12)
    free = measure((networks.mlp(tmp_path / "free.onnx"), data))
    fixed = measure((networks.mlp(tmp_path / "fixed.onnx", batch=batch), data))
    assert (fixed.path == "batched") == (batch > 1)
    for name, values in free.values.items():
        np.testing.assert_allclose(fixed.values[name], values, rtol=1e-4, atol=1e-9)


def test_samples_that_fill_up_the_last_batch_do_not_count(tmp_path, monkeypatch):
    path = networks.mlp(tmp_path / "m.onnx")
    data = networks.data(tmp_path / "d.npz", samples=13)
    whole = measure((path, data))
    monkeypatch.setattr("onnxrd.importance.batching.LARGEST_BATCH", 5)
    parts = measure((path, data))
    for name, values in whole.values.items():
        np.testing.assert_allclose(parts.values[name], values, rtol=1e-4, atol=1e-9)


def test_a_tied_weight_adds_its_gradients_before_they_are_squared(tmp_path):
    weights = {"w0": networks.normal(12, 12, scale=0.3), "w": networks.normal(12, 5, seed=4)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w0"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    path = networks.save(tmp_path / "t.onnx", nodes, weights, {"x": ["N", 12]}, {"y": ["N", 5]})
    data = networks.data(tmp_path / "d.npz", samples=8)
    h = measure((path, data), estimator=onnxrd.Estimator("exact"))
    assert h.path == "batched"
    feeds = {"x": np.load(data)["x"]}
    for flat in (0, 17, 100):
        expected = brute_force(path, feeds, "w0", flat)
        assert h.values["w0"].reshape(-1)[flat] == pytest.approx(expected, rel=0.03)


def beyond_det(folder):
    """Det has no rule: `w0` lies before it, `w` behind it."""
    weights = {"w0": networks.normal(12, 16), "w": networks.normal(4, 20, seed=4)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["m"]),
        helper.make_node("Det", ["m"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    weights["shape"] = np.array([-1, 4, 2, 2])
    path = networks.save(folder / "t.onnx", nodes, weights, {"x": ["N", 12]}, {"y": ["N", 20]})
    return path, networks.data(folder / "d.npz", samples=8, labels=False)


def test_what_a_missing_rule_blocks_is_named_and_measured_by_differences(tmp_path):
    path, data = beyond_det(tmp_path)
    h = measure((path, data), estimator=onnxrd.Estimator("exact"))
    assert not h.proxies
    assert list(h.fallbacks) == ["w0"]
    assert "Det" in h.fallbacks["w0"]
    feeds = {"x": np.load(data)["x"]}
    assert h.values["w"][1, 3] == pytest.approx(brute_force(path, feeds, "w", 23), rel=0.03)
    for flat in (0, 50, 100):
        expected = brute_force(path, feeds, "w0", flat)
        assert h.values["w0"].reshape(-1)[flat] == pytest.approx(expected, rel=0.03)
    result = onnxrd.quantize(path, tmp_path / "s.onnx", clusters=4, data=data)
    assert any("Det" in warning and "finite" in warning for warning in result.warnings)


def test_what_nothing_can_measure_gets_a_proxy_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxrd.importance.finite_difference.FALLBACK_FREE", 7)
    monkeypatch.setattr("onnxrd.importance.finite_difference.FALLBACK_PAIRS", 0)
    path, data = beyond_det(tmp_path)
    h = measure((path, data))
    assert not h.fallbacks
    assert list(h.proxies) == ["w0"]
    assert "Det" in h.proxies["w0"] and "too long" in h.proxies["w0"]
    assert (h.values["w0"] == h.values["w"].mean()).all()
    result = onnxrd.quantize(path, tmp_path / "s.onnx", clusters=4, data=data)
    assert any("Det" in warning for warning in result.warnings)
    assert {layer.name: bool(layer.proxy) for layer in result.layers} == {"w0": True, "w": False}


def test_nothing_has_a_derivative(tmp_path, monkeypatch):
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Round", ["a"], ["y"]),
    ]
    weights = {"w0": networks.normal(12, 16)}
    path = networks.save(tmp_path / "t.onnx", nodes, weights, {"x": ["N", 12]}, {"y": ["N", 16]})
    data = networks.data(tmp_path / "d.npz", samples=8, labels=False)
    h = measure((path, data))
    assert (h.path, list(h.fallbacks)) == ("no weight has a derivative", ["w0"])
    assert (h.values["w0"] > 0).any()
    monkeypatch.setattr(
        "onnxrd.importance.diagonal.fallback", lambda *_, **__: ({}, {}, {"w0": "no"})
    )
    with pytest.raises(ImportanceError, match="Round"):
        measure((path, data))


def test_temperature(tmp_path):
    """Halving the logits and doubling them again in front of the softmax changes nothing."""
    data = networks.data(tmp_path / "d.npz", samples=8)
    path = networks.mlp(tmp_path / "m.onnx")
    hot = measure((path, data), estimator=onnxrd.Estimator("exact", temperature=2.0))
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        if tensor.name in ("w2", "b2"):
            half = numpy_helper.to_array(tensor) / 2
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    onnx.save(proto, tmp_path / "half.onnx")
    half = measure((tmp_path / "half.onnx", data), estimator=onnxrd.Estimator("exact"))
    np.testing.assert_allclose(hot.values["w0"], half.values["w0"], rtol=1e-4, atol=1e-10)
    np.testing.assert_allclose(hot.values["w2"], half.values["w2"] / 4, rtol=1e-4, atol=1e-10)


def test_two_heads_add_up(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.graph.node.append(helper.make_node("MatMul", ["r1", "v"], ["z"]))
    proto.graph.node.append(helper.make_node("Tanh", ["z"], ["second"]))
    proto.graph.initializer.append(numpy_helper.from_array(networks.normal(24, 3), "v"))
    proto.graph.output.append(helper.make_tensor_value_info("second", 1, ["N", 3]))
    onnx.save(proto, tmp_path / "two.onnx")
    exact = onnxrd.Estimator("exact")
    data = networks.data(tmp_path / "d.npz", samples=8)
    both = measure((tmp_path / "two.onnx", data), estimator=exact)
    assert both.task == "classification+regression"
    first = measure((path, data), estimator=exact)
    del proto.graph.output[0]
    onnx.save(proto, tmp_path / "second.onnx")
    second = measure((tmp_path / "second.onnx", data), estimator=exact)
    total = first.values["w0"] + second.values["w0"]
    np.testing.assert_allclose(both.values["w0"], total, rtol=1e-4, atol=1e-9)


def test_data_without_a_sample_axis_count_as_calls(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    data = networks.data(tmp_path / "d.npz", samples=6)
    model = onnxrd.load_model(path)
    calls = [{"x": row[None]} for row in np.load(data)["x"]]
    h = onnxrd.fisher(model, onnxrd.load_data(calls, model.inputs))
    expected = measure((path, data))
    for name, values in expected.values.items():
        np.testing.assert_allclose(h.values[name], values, rtol=1e-4, atol=1e-9)


def test_damping_and_missing_importance(tmp_path):
    values = {"w": np.array([0.0, 1.0, 3.0, 0.0], np.float32), "z": np.zeros(3, np.float32)}
    h = Importance(values, "digest", damping=0.5)
    np.testing.assert_allclose(h.damped("w", (4,)), [0.5, 1.5, 3.5, 0.5])
    np.testing.assert_allclose(h.measured("w", (4,)), values["w"])
    np.testing.assert_allclose(h.damped("z", (3,)), 1.0)
    for name, shape in (("missing", (4,)), ("w", (2, 2))):
        with pytest.raises(ImportanceError, match=name):
            h.damped(name, shape)
    flat = identity(onnxrd.load_model(networks.mlp(tmp_path / "m.onnx")))
    np.testing.assert_array_equal(flat.damped("anything", (2, 3)), np.ones((2, 3)))
    assert not flat.in_nats


def test_saved_and_loaded(tmp_path):
    model = onnxrd.load_model(networks.mlp(tmp_path / "m.onnx"))
    values = {"a/b:c": networks.normal(3, 4) ** 2, "file": networks.normal(2) ** 2}
    h = Importance(values, model.digest, task="regression", samples=7, proxies={"file": "Det"})
    h.save(tmp_path / "h.npz")
    again = load_importance(tmp_path / "h.npz", model)
    assert again.about() == h.about()
    for name in values:
        np.testing.assert_array_equal(again.values[name], values[name])


@pytest.mark.parametrize(
    "settings", [{"kind": "guess"}, {"probes": 0}, {"temperature": 0.0}, {"temperature": np.inf}]
)
def test_estimators_that_make_no_sense(settings):
    with pytest.raises(SettingError):
        onnxrd.Estimator(**settings)


@pytest.mark.parametrize("name", ["mnist_mlp", "cifar10_cnn"])
def test_our_networks_against_central_differences(name):
    """Random coordinates of every weight, the exact sum over classes, in float32."""
    path = MODELS / f"{name}.onnx"
    model = onnxrd.load_model(path)
    data = onnxrd.load_data(MODELS / f"{name}_calib.npz", model.inputs, samples=16)
    h = onnxrd.fisher(model, data, estimator=onnxrd.Estimator("exact"))
    (batch,) = data.batches(16)
    rng = np.random.default_rng(1)
    for key, values in h.values.items():
        likely = rng.choice(values.size, 4, p=values.ravel() / values.sum(dtype=np.float64))
        for flat in likely:
            expected = _our_brute_force(path, batch.feeds, key, flat)
            assert values.reshape(-1)[flat] == pytest.approx(expected, rel=0.05), (key, flat)


def _our_brute_force(path, feeds, name, flat):
    import onnx_ir as ir

    array = next(
        numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer if i.name == name
    )
    step = 0.02 * float(array.std())
    logs = []
    for direction in (step, -step):
        session = Session(ir.from_proto(moved(path, name, flat, direction)))
        z = session.run(feeds)["logits"].astype(np.float64)
        z -= z.max(-1, keepdims=True)
        logs.append(z - np.log(np.exp(z).sum(-1, keepdims=True)))
    slope = (logs[0] - logs[1]) / (2 * step)
    return float((np.exp((logs[0] + logs[1]) / 2) * slope**2).sum(-1).mean())
