"""Second moments of the cotangents of computed values, against central differences."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.utils import Extractor

import onnxrd
from onnxrd.autodiff.gradients import Gradients
from onnxrd.graph.session import Runtime
from tests import networks

AXES = {"a1": 1, "a2": 1, "a3": 1, "y": -1}
X = networks.normal(3, 2, 8, 8, seed=3)
DELTA = 1e-2


@pytest.fixture
def path(tmp_path):
    """Smooth, so that differences are near derivatives."""
    return networks.cnn(tmp_path / "cnn.onnx", activation="Softplus", pool="AveragePool")


def run_between(path, start, end):
    """A function that computes one value of a network from another one."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    part = Extractor(model).extract_model(list(dict.fromkeys([start, "x"])), [end])
    session = ort.InferenceSession(part.SerializeToString())
    return lambda value: session.run(None, {"x": X, start: value})[0]


def cotangent(path, name, seed):
    """Of Σ seed · y at a value, entry by entry."""
    value = run_between(path, "x", name)(X)
    rest = run_between(path, name, "y")
    found = np.zeros(value.shape)
    for place in np.ndindex(*value.shape):
        sums = []
        for sign in (1, -1):
            moved = value.copy()
            moved[place] += sign * DELTA
            sums.append(np.sum(seed * rest(moved), dtype=np.float64))
        found[place] = (sums[0] - sums[1]) / (2 * DELTA)
    return found


def test_second_moments_of_the_outputs_of_layers(path):
    prepared = onnxrd.load_model(path).prepared()
    names = [
        name for name in AXES if any(name == v.name for n in prepared.graph for v in n.outputs)
    ]
    assert "a2" in names
    assert "a3" in names
    gradients = Gradients(prepared, Path(), ["y"], names, axes=AXES, runtime=Runtime(threads=1))
    forward = gradients.forward("second moment", {"x": X})
    seed = np.random.default_rng(1).standard_normal(forward.sources["y"].shape)
    found = gradients.backward(forward, {"y": seed})
    assert list(found) == names
    for name in names:
        expected = seed if name == "y" else cotangent(path, name, seed)
        rows = np.moveaxis(expected, AXES[name], -1).reshape(-1, expected.shape[AXES[name]])
        scale = np.abs(rows.T @ rows).max()
        np.testing.assert_allclose(found[name], rows.T @ rows, atol=2e-3 * scale)
