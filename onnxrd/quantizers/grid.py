"""A uniform grid with zero on it: steps and integers, entropy-coded afterwards.

At equal rate an entropy-coded grid beats a codebook of the same distortion by up to ½ log₂(πe/6),
a quarter of a bit from Shannon's bound at high rate; large steps prune, for most integers are zero
then.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.quantizers.quantized import Array, Codebook

Integers = NDArray[np.int32]


def round_to_grid(weight: Array, step: float, scales: Array | None = None) -> Integers:
    """The nearest multiple of the step for every weight, as integers, [*weight].

    Args:
        weight: [*weight].
        step: the distance of two levels.
        scales: positive integers that broadcast to the weight; an entry becomes a multiple of its
            scale.
    """
    if scales is None:
        return np.rint(np.asarray(weight, np.float64) / step).astype(np.int32)
    coarse = np.rint(np.asarray(weight, np.float64) / (step * scales))
    return np.asarray(coarse * scales, np.int32)


def grid_codebook(integers: Integers, step: float, dtype: np.dtype[Any]) -> Codebook:
    """Integers on a grid as a codebook of the levels that occur, zero among them.

    Args:
        integers: [*weight].
        step: the distance of two levels.
        dtype: of the weight.
    """
    least, most = min(int(integers.min(initial=0)), 0), max(int(integers.max(initial=0)), 0)
    codes = integers - least
    levels = np.arange(least, most + 1).astype(dtype) * dtype.type(step)
    return Codebook(codes.astype(np.min_scalar_type(most - least)), levels)


def best_scale(weight: Array, integers: Integers) -> float:
    """The step that leaves golden rule 1 fulfilled: Σ w k / Σ k² (0 where all k are 0)."""
    k = integers.astype(np.float64)
    energy = float((k * k).sum())
    return float((k * weight).sum()) / energy if energy else 0.0
