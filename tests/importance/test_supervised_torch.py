"""Squared gradients and second derivatives of the loss against torch, sample by sample."""

import numpy as np
import pytest

from tests import networks
from tests.importance.test_supervised import assert_equal, measured

torch = pytest.importorskip("torch")
functional = torch.nn.functional

NODES = [
    networks.node("Conv", ["x", "c"], ["a"], pads=[1, 1, 1, 1], strides=[1, 1]),
    networks.node("Relu", ["a"], ["r"]),
    networks.node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[1, 1]),
    networks.node("Conv", ["p", "k"], ["b"]),
    networks.node("Relu", ["b"], ["s"]),
    networks.node("Flatten", ["s"], ["f"]),
    networks.node("Gemm", ["f", "w"], ["y"], transB=1),
]
WEIGHTS = {
    "c": networks.normal(4, 2, 3, 3, scale=0.4),
    "k": networks.normal(6, 4, 2, 2, seed=1, scale=0.4),
    "w": networks.normal(5, 54, seed=2, scale=0.7),
}


def forward(weights, x):
    x = torch.relu(functional.conv2d(x, weights["c"], padding=1))
    x = functional.max_pool2d(x, 2, 1)
    x = torch.relu(functional.conv2d(x, weights["k"]))
    return x.flatten(1) @ weights["w"].T


def derivatives(forward, arrays, x, labels):
    """name → (∂L, diagonal of ∂²L), [N, *weight] each, in float64."""
    weights = {name: torch.from_numpy(array).double() for name, array in arrays.items()}

    def of_one(name, x, label):
        def loss(flat):
            chosen = {**weights, name: flat.reshape(weights[name].shape)}
            return functional.cross_entropy(forward(chosen, x[None]), label[None])

        flat = weights[name].reshape(-1)
        bent = torch.func.jacrev(torch.func.grad(loss))(flat)
        return torch.func.grad(loss)(flat), bent.diagonal()

    found = {}
    for name, array in arrays.items():
        pairs = [of_one(name, *one) for one in zip(torch.from_numpy(x).double(), labels)]
        found[name] = [
            np.stack([p[k].numpy() for p in pairs]).reshape(-1, *array.shape) for k in (0, 1)
        ]
    return found


def test_convolutions(tmp_path):
    path = networks.save(
        tmp_path / "m.onnx", NODES, WEIGHTS, {"x": ["N", 2, 5, 5]}, {"y": ["N", 5]}
    )
    x, labels = networks.normal(6, 2, 5, 5), networks.rng().integers(0, 5, 6)
    found = derivatives(forward, WEIGHTS, x, torch.from_numpy(labels))
    both = measured(path, "gradient+hessian", {"x": x}, labels)
    assert_equal(both.values, {n: (g**2).mean(0) for n, (g, _) in found.items()})
    assert_equal(both.quartic, {n: (b**2).mean(0) for n, (_, b) in found.items()})
    bent = measured(path, "hessian", {"x": x}, labels)
    assert_equal(bent.values, {n: b.mean(0) for n, (_, b) in found.items()})
