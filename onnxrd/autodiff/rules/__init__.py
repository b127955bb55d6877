"""Rules by family of operators; importing this package fills the registry."""

from onnxrd.autodiff.rules import (
    convolution,
    elementwise,
    linear,
    movement,
    normalisation,
    pooling,
)

__all__ = ["convolution", "elementwise", "linear", "movement", "normalisation", "pooling"]
