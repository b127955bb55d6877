"""Quantizers: (weight, importance, setting) → `Quantized`. One file each, pure numpy."""

from onnxrd.quantizers.kmeans import weighted_kmeans
from onnxrd.quantizers.measures import rule1_residual, weighted_distortion
from onnxrd.quantizers.pruning import prune, prune_and_quantize
from onnxrd.quantizers.quantized import Codebook, Quantized, Sparse
from onnxrd.quantizers.quartic import quartic_kmeans
from onnxrd.quantizers.shelf import Shelf

__all__ = [
    "Codebook",
    "Quantized",
    "Shelf",
    "Sparse",
    "prune",
    "prune_and_quantize",
    "quartic_kmeans",
    "rule1_residual",
    "weighted_distortion",
    "weighted_kmeans",
]
