"""A uniform grid with zero on it: steps and integers, entropy-coded afterwards.

At equal rate an entropy-coded grid beats a codebook of the same distortion by up to ½ log₂(πe/6),
a quarter of a bit from Shannon's bound at high rate; large steps prune, for most integers are zero
then.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.quantizers.coded import best_step, coded, fitted_step
from onnxrd.quantizers.quantized import Array, Codebook

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

PRICE = 7.5
"""Bits that the mean squared step costs, where the step is best: 1 to 4 bits, Gaussian weights."""


def round_to_grid(weight: Array, step: float) -> Integers:
    """The nearest multiple of the step for every weight, as integers, [*weight].

    Args:
        weight: [*weight].
        step: the distance of two levels.
    """
    return np.rint(np.asarray(weight, np.float64) / step).astype(np.int32)


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


def on_grid(weight: Array, importance: Array, slope: float, *, coarser: float = 1.0) -> Codebook:
    """The codebook on a grid that costs the least, ½ h (w - ŵ)² + slope · bits.

    Args:
        weight: [*weight].
        importance: [*weight], h >= 0, not all 0.
        slope: what a bit is worth, in the unit of the distortion, > 0.
        coarser: factor on the mean square of the step. Larger ones, which cost more, reach rates
            between the least at which a grid is worth its bits and zero.
    """
    step = best_step(weight, importance, slope, PRICE * coarser)
    codes = coded(weight, importance, slope, step, _decide)
    step = fitted_step(weight, codes, importance, step)
    return grid_codebook(codes.astype(np.int32), step, weight.dtype)


def _decide(units: Floats, price: Floats, bits: Floats) -> NDArray[np.int16]:
    """See `onnxrd.quantizers.coded.Decide`: the nearest, the next one towards zero, or zero."""
    reach = len(bits) // 2
    nearest = np.rint(units).astype(np.int16)
    cost, best = np.full_like(units, np.inf), nearest
    for codes in (nearest, nearest - np.sign(nearest), np.zeros_like(nearest)):
        trial = price * (units - codes) ** 2 + bits[codes + reach]
        cheaper = trial < cost
        cost, best = np.where(cheaper, trial, cost), np.where(cheaper, codes, best)
    return best
