"""Rules by family of operators; importing this package fills the registry."""

from onnxrd.autodiff.rules import (
    activations,
    convolution,
    elementwise,
    linear,
    movement,
    normalisation,
    pooling,
)

__all__ = [
    "activations",
    "convolution",
    "elementwise",
    "linear",
    "movement",
    "normalisation",
    "pooling",
]
