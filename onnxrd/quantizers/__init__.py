"""Quantizers: (weight, importance, setting) → `Quantized`. One file each, pure numpy."""

from onnxrd.quantizers.quantized import Codebook, Quantized, Sparse

__all__ = ["Codebook", "Quantized", "Sparse"]
