"""Quantizers: (weight, importance, setting) → `Quantized`. One file each, pure numpy."""

from onnxrd.quantizers.coded import thinned
from onnxrd.quantizers.grid import on_grid
from onnxrd.quantizers.kmeans import weighted_kmeans
from onnxrd.quantizers.measures import rule1_residual, weighted_distortion
from onnxrd.quantizers.pruning import prune, prune_and_quantize
from onnxrd.quantizers.quantized import Codebook, Quantized, Sparse, Stacked, weight_dtype
from onnxrd.quantizers.quartic import quartic_kmeans
from onnxrd.quantizers.shelf import Shelf
from onnxrd.quantizers.trellis import Trellis, state_bits
from onnxrd.quantizers.vector_fit import vector_kmeans
from onnxrd.quantizers.vectors import VectorCodebook
from onnxrd.quantizers.viterbi import on_trellis

__all__ = [
    "Codebook",
    "Quantized",
    "Shelf",
    "Sparse",
    "Stacked",
    "Trellis",
    "VectorCodebook",
    "on_grid",
    "on_trellis",
    "prune",
    "prune_and_quantize",
    "quartic_kmeans",
    "rule1_residual",
    "state_bits",
    "thinned",
    "vector_kmeans",
    "weight_dtype",
    "weighted_distortion",
    "weighted_kmeans",
]
