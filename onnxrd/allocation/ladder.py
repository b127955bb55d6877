"""Rate and distortion of a tensor on grids of many steps, and the best step for a slope."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SAMPLE = 1 << 15
"""Weights of a tensor that its curve is made from."""

RUNGS = 8
"""Steps to the factor of two."""

COARSEST = 64
"""The coarsest step, in largest weights: plain rounding leaves nothing of a tensor from 2 on, but
errors that are fed back add up, and go on to be worth less."""


@dataclass(frozen=True, eq=False)
class Ladder:
    """A tensor on grids of falling fineness; the last grid makes everything zero.

    Attributes:
        size: number of weights, n.
        curvature: h, nats per weight²: quantizing costs ½ h n times the mean squared error.
        steps: [S], ascending.
        bits: [S], entropy of a weight on the grid, bits.
        errors: [S], mean squared rounding error.
    """

    size: int
    curvature: float
    steps: Floats
    bits: Floats
    errors: Floats

    def distortion(self, rung: int) -> float:
        """What quantizing the tensor with one of the steps costs, nats."""
        return self.curvature / 2 * self.size * float(self.errors[rung])

    def step(self, slope: float) -> float:
        """The step to take where a bit shall save so many nats.

        At high rate D = ½ h Δ²/12 and a bit halves Δ, so that -dD/dR = h Δ² ln 2 / 12. The same
        relation is kept at low rates: there the measured curve of plain rounding would have whole
        tensors pruned that error feedback can still make something of.
        """
        step = np.sqrt(12 * slope / (np.log(2) * max(self.curvature, np.finfo(np.float64).tiny)))
        return float(np.clip(step, self.steps[0], self.steps[-1]))

    @property
    def largest_slope(self) -> float:
        """The slope from which on the step is the coarsest one."""
        return float(self.curvature * np.log(2) / 12 * self.steps[-1] ** 2)

    def at(self, slope: float) -> int:
        """Which of the steps is nearest to that."""
        return int(np.argmin(np.abs(np.log(self.steps / self.step(slope)))))


def ladder(weight: NDArray[np.floating], curvature: float, seed: int = 0) -> Ladder:
    """The ladder of a tensor, made from a sample of its weights.

    Args:
        weight: [*weight].
        curvature: h.
        seed: of the sample.
    """
    flat = np.asarray(weight, np.float64).ravel()
    if flat.size > SAMPLE:
        chosen = np.random.default_rng(seed).choice(flat.size, SAMPLE, replace=False)
        sample = flat[np.sort(chosen)]
    else:
        sample = flat
    largest = float(np.abs(flat).max(initial=0)) or 1.0
    spread = float(np.sqrt(np.mean(sample**2))) or largest
    ranged = weight.dtype if weight.dtype.kind == "f" else np.float32  # bfloat16 has its range
    coarsest = min(COARSEST * largest, float(np.finfo(ranged).max) / 4)
    count = int(np.ceil(np.log2(coarsest / spread * 128) * RUNGS)) + RUNGS
    steps = coarsest * 2.0 ** (-np.arange(count) / RUNGS)[::-1]
    points = [_point(sample, step) for step in steps]
    bits, errors = np.array(points).T
    return Ladder(flat.size, curvature, steps, bits, errors)


def _point(sample: Floats, step: float) -> tuple[float, float]:
    integers = np.rint(sample / step)
    error = float(np.mean((sample - integers * step) ** 2))
    counts = np.bincount((integers - integers.min()).astype(np.int64))
    share = counts[counts > 0] / sample.size
    return float(-(share * np.log2(share)).sum()), error


def total_bits(ladders: Sequence[Ladder], slope: float) -> float:
    """Bits of all tensors together at a slope."""
    return sum(one.size * float(one.bits[one.at(slope)]) for one in ladders)


def total_distortion(ladders: Sequence[Ladder], slope: float) -> float:
    """Distortion of all tensors together at a slope, nats."""
    return sum(one.distortion(one.at(slope)) for one in ladders)


def steps_at(ladders: Mapping[str, Ladder], slope: float) -> dict[str, float]:
    """The step of each tensor at a slope, nats per bit."""
    return {name: one.step(slope) for name, one in ladders.items()}


def slope_for_bits(ladders: Sequence[Ladder], bits: float) -> float:
    """The slope at which all tensors together take so many bits a weight (nearly)."""
    size = sum(one.size for one in ladders)
    return _least_slope(ladders, lambda slope: total_bits(ladders, slope) <= bits * size)


def slope_for_distortion(ladders: Sequence[Ladder], nats: float) -> float:
    """The slope at which all tensors together are expected to cost so much (nearly).

    That from which on everything is zero, if even that costs less.
    """
    most = 0.999 * sum(one.distortion(-1) for one in ladders)
    return _least_slope(ladders, lambda slope: total_distortion(ladders, slope) >= min(nats, most))


def _least_slope(ladders: Sequence[Ladder], reached: Callable[[float], bool]) -> float:
    """The least slope at which something is reached that is at all larger ones, too."""
    top = max(one.curvature * float(one.errors[-1]) for one in ladders) + 1e-300
    low, high = np.log(top) - 60, np.log(top) + 5
    for _ in range(60):
        middle = (low + high) / 2
        if reached(float(np.exp(middle))):
            high = middle
        else:
            low = middle
    return float(np.exp(high))
