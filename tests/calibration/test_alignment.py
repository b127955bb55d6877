"""Networks that put time before the samples at their end."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxrd
from onnxrd.calibration import aligned
from tests import networks

node = helper.make_node


def time_first(path, batch, *, extra=()):
    """[N, T, 6] → RNN → [T, N, 5], logits of a class for each time."""
    nodes = [
        node("Transpose", ["x"], ["turned"], perm=[1, 0, 2]),
        node("RNN", ["turned", "W", "R"], ["h"], hidden_size=12),
        node("Squeeze", ["h", "one"], ["s"]),
        node("MatMul", ["s", "w"], ["y"]),
        *extra,
    ]
    weights = {
        "W": networks.normal(1, 12, 6, seed=1),
        "R": networks.normal(1, 12, 12, seed=2, scale=0.3),
        "w": networks.normal(12, 5, seed=3),
        "v": networks.normal(12, 7, seed=4),
        "one": np.array([1]),
    }
    return networks.save(path, nodes, weights, {"x": [batch, 4, 6]}, {"y": [4, batch, 5]})


def opened(path, samples=6):
    model = onnxrd.load_model(path)
    return model, onnxrd.load_data({"x": networks.normal(samples, 4, 6)}, model.inputs)


@pytest.mark.parametrize("batch", [1, "N"])
def test_each_sample_is_a_call(tmp_path, batch):
    model, data = opened(time_first(tmp_path / "m.onnx", batch))
    found = aligned(model, data)
    assert data.sample_axis and not found.sample_axis
    assert found.samples == data.samples == 6
    batches = list(found.batches(4))
    assert [(b.size, b.feeds["x"].shape) for b in batches] == [(1, (1, 4, 6))] * 6
    rows = np.concatenate([b.feeds["x"] for b in batches])
    np.testing.assert_array_equal(rows, networks.normal(6, 4, 6))
    assert aligned(model, found) is found
    assert found.subset([1, 3]).samples == 2


def test_a_fixed_batch_of_several_is_refused(tmp_path):
    model, data = opened(time_first(tmp_path / "m.onnx", 3))
    with pytest.raises(onnxrd.CalibrationError, match="takes 3 samples at once"):
        aligned(model, data)


@pytest.mark.parametrize("batch", [3, "N"])
def test_outputs_that_are_ignored_do_not_matter(tmp_path, batch):
    path = time_first(tmp_path / "m.onnx", batch)
    network = onnx.load(path)
    network.graph.node.append(helper.make_node("Flatten", ["x"], ["flat"]))
    network.graph.node.append(helper.make_node("MatMul", ["flat", "u"], ["z"]))
    u = numpy_helper.from_array(networks.normal(24, 100), "u")
    network.graph.initializer.append(u)
    info = helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [batch, 100])
    network.graph.output.append(info)
    onnx.save(network, path)
    model, data = opened(path, 12)
    assert aligned(model, data, ignored=["y"]) is data
    options = onnxrd.Options(task={"y": "ignore"})
    target = onnxrd.Target("kl", 0.01)
    given = {"x": networks.normal(12, 4, 6)}
    result = onnxrd.compress(path, tmp_path / "s.onnx", target=target, data=given, options=options)
    assert result.evaluation.distortion <= 0.01


def test_networks_with_samples_first_stay_as_they_are(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    model = onnxrd.load_model(path)
    data = onnxrd.load_data({"x": networks.normal(6, 12)}, model.inputs)
    assert aligned(model, data) is data


def test_all_times_count(tmp_path):
    """Importance and evaluation are the same for batches of one as for any batch."""
    results = {}
    for batch in (1, "N"):
        path = time_first(tmp_path / f"{batch}.onnx", batch)
        model, data = opened(path)
        h = onnxrd.fisher(model, data, task="classification")
        small = tmp_path / f"small{batch}.onnx"
        options = onnxrd.Options(task="classification", force=True)
        result = onnxrd.quantize(path, small, clusters=4, importance=h, options=options)
        assert {layer.name for layer in result.layers} == {"W", "R"}
        results[batch] = h, onnxrd.evaluate(model, onnxrd.load_model(small), data, **{
            "task": "classification", "timed": False,
        })  # fmt: skip
    for name, value in results[1][0].values.items():
        assert value.any()
        np.testing.assert_allclose(value, results["N"][0].values[name], rtol=1e-4)
    (one,), (many,) = (results[b][1].heads for b in (1, "N"))
    assert one.distortion.mean == pytest.approx(many.distortion.mean, rel=1e-4)
    assert 0 < one.distortion.mean < 1


def test_the_importance_is_that_of_the_same_network_with_samples_first(tmp_path):
    """Up to the seeds, which are drawn for other shapes: with the exact sum there are none."""
    estimator = onnxrd.Estimator("exact")
    last = {}
    for name, extra in (("t", ()), ("n", [node("Transpose", ["y"], ["z"], perm=[1, 0, 2])])):
        path = time_first(tmp_path / f"{name}.onnx", "N", extra=extra)
        if extra:
            model = onnx.load(path)
            model.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", 1, ["N", 4, 5]))
            onnx.save(model, path)
        model, data = opened(path)
        assert aligned(model, data).sample_axis == bool(extra)
        last[name] = onnxrd.fisher(model, data, task="classification", estimator=estimator).values
    for name, value in last["t"].items():
        np.testing.assert_allclose(value, last["n"][name], rtol=1e-3, atol=1e-6)
