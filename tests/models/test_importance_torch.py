"""Importance of our own networks against torch's per-sample gradients, same samples and seeds."""

from pathlib import Path

import numpy as np
import pytest

import onnxrd
from onnxrd.distortion import find_heads

torch = pytest.importorskip("torch")

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.mark.parametrize("name", ["mnist_mlp", "cifar10_cnn"])
@pytest.mark.parametrize("estimator", ["rademacher", "sampled"])
def test_squared_gradients_equal_torch(name, estimator):
    from tests.torch_graph import torch_graph

    path = MODELS / f"{name}.onnx"
    model = onnxrd.load_model(path)
    data = onnxrd.load_data(MODELS / f"{name}_calib.npz", model.inputs, samples=24)
    draws = onnxrd.Estimator(estimator, seed=3)
    measured = onnxrd.fisher(model, data, estimator=draws)
    assert measured.path == "batched"

    run, weights = torch_graph(path)
    chosen = {key: weights[key] for key in measured.values}
    (head,) = find_heads(model.prepared())
    (batch,) = data.batches(24)
    x = torch.from_numpy(batch.feeds["input"])
    (seeds,) = draws.seeds([head], {head.source: run(chosen, x).detach().numpy()}, 0)
    s = torch.from_numpy(seeds[head.source]).float()
    per_sample = torch.func.vmap(
        torch.func.grad(lambda w, one, seed: (run(w, one[None])[0] * seed).sum()),
        in_dims=(None, 0, 0),
    )
    for key, gradients in per_sample(chosen, x, s).items():
        expected = gradients.square().mean(0).numpy()
        error = np.abs(measured.values[key] - expected).sum() / expected.sum()
        assert error < 1e-4, f"{key}: {error:.1e}"
