"""Rules by family of operators; importing this package fills the registry."""

from onnxrd.autodiff.rules import (
    activations,
    convolution,
    einsum,
    elementwise,
    indexing,
    linear,
    movement,
    normalisation,
    pooling,
    recurrent,
    reductions,
    resize,
    standardisation,
    transposed,
)

__all__ = [
    "activations",
    "convolution",
    "einsum",
    "elementwise",
    "indexing",
    "linear",
    "movement",
    "normalisation",
    "pooling",
    "recurrent",
    "reductions",
    "resize",
    "standardisation",
    "transposed",
]
