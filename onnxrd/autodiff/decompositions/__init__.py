"""Operators in terms of simpler ones; importing this package fills the registry."""

from onnxrd.autodiff.decompositions import affine_grid, attention, embedding, fused, rotary

__all__ = ["affine_grid", "attention", "embedding", "fused", "rotary"]
