"""Decisions that know what they cost: squared errors, by importance, and bits together.

What a code costs in bits depends on how often it is used, which depends on the decisions: both are
settled in turn, on a sample of the weights (Chou, Lookabaugh, Gray, Entropy-constrained vector
quantization, 1989).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float32]
Decide = Callable[[Floats, Floats, Floats], NDArray[np.int16]]
"""(weights [n] in steps; what a squared step costs, in bits, [n]; bits of the codes [2R+1], code k
at R + k) → codes [n]."""

SAMPLE = 1 << 16
"""Weights that bits are settled on, in runs of `RUN`."""

RUN = 256
ROUNDS = 4


FINEST = 120
"""Codes on either side of zero, at most: entropy-coded streams hold eight bits each."""


def best_step(weight: Array, importance: Array, slope: float, price: float) -> float:
    """The step of which the mean square costs so many bits: ½ h step² = price · slope.

    Args:
        weight: [*weight].
        importance: [*weight], h >= 0, not all 0.
        slope: what a bit is worth.
        price: in bits; what is best hardly depends on the rate.
    """
    mean = float(importance.mean(dtype=np.float64)) if importance.size else 1.0
    finest = float(np.abs(weight).max(initial=0)) / FINEST or 1.0
    return max(math.sqrt(2 * slope * price / mean), finest)


def ideal_bits(codes: Array, reach: int) -> Floats:
    """[2R+1], bits of an ideal code for each of the codes -R…R; half a time is added to each count.

    Args:
        codes: [n], integers of -R…R.
        reach: R.
    """
    counts = np.bincount(codes + np.int64(reach), minlength=2 * reach + 1) + 0.5
    return np.asarray(np.log2(counts.sum()) - np.log2(counts), np.float32)


def coded(
    weight: Array, importance: Array, slope: float, step: float, decide: Decide
) -> NDArray[np.int16]:
    """Codes that cost the least, ½ h (w - ŵ)² + slope · bits summed over the weights: [*weight].

    Args:
        weight: [*weight].
        importance: [*weight], h >= 0, not all 0.
        slope: what a bit is worth, in the unit of the distortion, > 0.
        step: of the grid.
        decide: gives codes for given bits.
    """
    units = np.asarray(weight / step, np.float32).ravel()
    price = np.asarray(importance * (step * step / 2 / slope), np.float32).ravel()
    reach = int(np.ceil(np.abs(units).max(initial=0))) + 2
    sample = thinned(units, price)
    bits = ideal_bits(np.rint(sample[0]).astype(np.int16), reach)
    for _ in range(ROUNDS):
        bits = ideal_bits(decide(*sample, bits), reach)
    return decide(units, price, bits).reshape(weight.shape)


def thinned(weight: Array, importance: Array) -> tuple[Array, Array]:
    """Runs of neighbours at equal distances, [m] each: all of a small weight, [*weight]."""
    flat, costs = weight.ravel(), importance.ravel()
    if flat.size <= SAMPLE:
        return flat, costs
    starts = np.linspace(0, flat.size - RUN, SAMPLE // RUN).astype(np.intp)
    chosen = (starts[:, None] + np.arange(RUN)).ravel()
    return flat[chosen], costs[chosen]


def fitted_step(weight: Array, units: Array, importance: Array, step: float) -> float:
    """The step that leaves golden rule 1 fulfilled, Σ h w u / Σ h u²; as it was where all u are 0.

    Args:
        weight: [*weight].
        units: [*weight], u: the approximation over the step.
        importance: [*weight], h.
        step: the present one.
    """
    mass = importance * units.astype(np.float64)
    energy = float((mass * units).sum())
    return float((mass * weight).sum()) / energy if energy else step
