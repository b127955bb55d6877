"""Operators in terms of simpler ones; importing this package fills the registry."""

from onnxrd.autodiff.decompositions import attention, embedding, fused, rotary

__all__ = ["attention", "embedding", "fused", "rotary"]
