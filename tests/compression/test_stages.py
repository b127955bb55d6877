"""A walk through a network in stages says what the network says, whatever changes on the way."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto

import onnxrd
from onnxrd.calibration import load as load_data
from onnxrd.compression.directions import directions
from onnxrd.compression.network import Network
from onnxrd.compression.quantization import Method
from onnxrd.compression.sequential import Sequential
from onnxrd.graph.weights import find_weights
from tests import networks


@pytest.fixture
def network(tmp_path):
    model = onnxrd.load_model(networks.cnn(tmp_path / "cnn.onnx"))
    prepared = model.prepared()
    weights = [w for w in find_weights(model, prepared) if not w.skip]
    data = load_data({"x": networks.normal(40, 2, 8, 8, seed=5)}, model.inputs)
    return Network(model, prepared, weights, data)


def test_a_walk_ends_at_the_outputs(network):
    walk = network.walk()
    for _ in network.waves:
        taps = walk.advance({})
    session = ort.InferenceSession(network.model.path)
    taps = walk.advance({})
    for feeds, found in zip(network.batches, taps, strict=True):
        np.testing.assert_allclose(found["y"], session.run(["y"], feeds)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [Method(), Method(bias=False), Method(directions=True)])
def test_fine_steps_change_next_to_nothing_and_coarse_ones_less_than_rounding(network, method):
    network.directions = directions(network)
    assert len(network.directions) == len(network.layers)
    steps = {w.name: float(np.abs(w.array()).max()) / 6 for w in network.weights}
    damages = []
    for shrink in (100, 1):
        fine = {name: step / shrink for name, step in steps.items()}
        done = Sequential(network).quantize(fine, method)
        damages.append(damage(network, done.constants()))
    rounded = {
        w.name: (np.rint(w.array() / steps[w.name]) * steps[w.name]).astype(np.float32)
        for w in network.weights
    }
    assert damages[0] < 1e-3 * damages[1]
    assert damages[1] < 0.8 * damage(network, rounded)


def test_biases_keep_the_bits_that_are_worth_it(network):
    steps = {w.name: float(np.abs(w.array()).max()) / 6 for w in network.weights}
    biases = [layer.form.bias for layer in network.layers if layer.form.bias]
    found = []
    for network.halves in ((), biases):
        done = Sequential(network).quantize(steps, Method())
        found.append((damage(network, done.constants()), done.biases))
    assert found[1][0] < 1.3 * found[0][0]
    after = np.concatenate([found[1][1][name] for name in biases])
    spare = np.frexp(after)[0] * 2**8  # of the eleven bits of half precision
    assert np.mean(spare == np.rint(spare)) > 0.9


def test_directions_of_layers_that_multiply_a_vector_from_the_left(tmp_path):
    nodes = [
        networks.node("MatMul", ["w", "x"], ["h"]),
        networks.node("Relu", ["h"], ["r"]),
        networks.node("MatMul", ["v", "r"], ["y"]),
        networks.node("MatMul", ["u", "r"], ["d"]),
        networks.node("ArgMax", ["d"], ["best"], axis=0),
    ]
    weights = {"w": networks.normal(24, 12), "v": networks.normal(6, 24)}
    weights["u"] = networks.normal(6, 24, seed=1)
    outputs = {"y": [6], "best": (TensorProto.INT64, [1])}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, {"x": [12]}, outputs)
    model = onnxrd.load_model(path)
    prepared = model.prepared()
    calls = [{"x": networks.normal(12, seed=seed)} for seed in range(8)]
    data = load_data(calls, model.inputs)
    network = Network(model, prepared, find_weights(model, prepared), data)
    assert [second.values.shape[-1] for second in directions(network).values()] == [24, 6]


def test_products_of_constants_are_no_layers(tmp_path):
    """As of an adapter that is not merged: x (W + A B)."""
    nodes = [
        networks.node("MatMul", ["a", "b"], ["ab"]),
        networks.node("Add", ["w", "ab"], ["sum"]),
        networks.node("MatMul", ["x", "sum"], ["h"]),
        networks.node("Relu", ["h"], ["r"]),
        networks.node("MatMul", ["r", "v"], ["y"]),
    ]
    weights = {
        "a": networks.normal(12, 8, scale=0.3),
        "b": networks.normal(8, 24, seed=1, scale=0.3),
        "w": networks.normal(12, 24, seed=2, scale=0.3),
        "v": networks.normal(24, 6, seed=3, scale=0.3),
    }
    path = networks.save(tmp_path / "m.onnx", nodes, weights, {"x": ["N", 12]}, {"y": ["N", 6]})
    model = onnxrd.load_model(path)
    prepared = model.prepared()
    data = load_data({"x": networks.normal(40, 12)}, model.inputs)
    network = Network(model, prepared, find_weights(model, prepared), data)
    assert [layer.weight.name for layer in network.layers] == ["v"]
    steps = {w.name: float(np.abs(w.array()).max()) / 600 for w in network.weights}
    done = Sequential(network).quantize(steps, Method())
    assert 0 < damage(network, done.constants()) < 1e-4


def damage(network, constants):
    walks = [network.walk(), network.walk()]
    for _ in network.stages:
        taps, changed = walks[0].advance({}), walks[1].advance(constants)
    return np.mean([np.mean((a["y"] - b["y"]) ** 2) for a, b in zip(taps, changed, strict=True)])
