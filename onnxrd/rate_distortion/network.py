"""A whole network: tensors of independent weights that share one budget of distortion."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxrd.errors import ImportanceError
from onnxrd.rate_distortion.curves import Curve, empirical_curve, gaussian_curve
from onnxrd.rate_distortion.gaussian import BITS, chosen_target
from onnxrd.rate_distortion.histogram import Array, Floats, Histogram, centred, histogram


@dataclass(frozen=True, eq=False)
class Source:
    """The weights of a tensor: draws of one density, whose importance tells nothing of their value.

    Attributes:
        curve: R(D) of a weight.
        importance: of its weights, nats per weight², >= 0 (`histogram` of [*weight]).

    Raises:
        ImportanceError: an importance is negative.
    """

    curve: Curve
    importance: Histogram

    def __post_init__(self) -> None:
        if self.importance.values[0] < 0:
            raise ImportanceError("importance must not be negative: compute it again")

    def at(self, multiplier: float) -> tuple[float, float]:
        """Rate and distortion of all weights together, both in nats, at a multiplier μ > 0.

        A weight of importance h buys rate as long as a nat saves 2μ of ½ h (w - ŵ)²; so its slope
        -dR/dD is h/(4μ).
        """
        h, counts = self.importance.values, self.importance.counts
        nats, error = self.curve.at(h / (4 * multiplier))
        return float(counts @ nats), float(counts @ (h * error)) / 2


def gaussian_source(weight: Array, importance: Array) -> Source:
    """A tensor as if its weights were Gaussian: the most that any density of its variance costs.

    Args:
        weight: [*weight].
        importance: [*weight], nats per weight², >= 0.

    Raises:
        SettingError: a number is not finite, or there is none.
        ImportanceError: an importance is negative.
    """
    return Source(gaussian_curve(centred(weight).variance), histogram(importance))


def empirical_source(weight: Array, importance: Array) -> Source:
    """A tensor whose weights have the density that they are seen to have (`empirical_curve`).

    Args:
        weight: [*weight].
        importance: [*weight], nats per weight², >= 0.

    Raises:
        SettingError: a number is not finite, or there is none.
        ImportanceError: an importance is negative.
    """
    return Source(empirical_curve(weight), histogram(importance))


@dataclass(frozen=True, eq=False)
class Bound:
    """No compressor needs less, if the weights are as independent as the sources have them.

    Attributes:
        multiplier: μ; the last nat spent saves 2μ of distortion, in each tensor.
        nats: [S], the rate of each tensor, all its weights together.
        distortion: [S], ½ Σ h (w - ŵ)² of each tensor, nats.
        sizes: [S], number of weights.
    """

    multiplier: float
    nats: Floats
    distortion: Floats
    sizes: Floats

    @property
    def bits(self) -> Floats:
        """[S], the rate of each tensor in bits, all its weights together."""
        return self.nats * BITS

    @property
    def bits_per_weight(self) -> float:
        """Of the network."""
        return float(self.bits.sum() / self.sizes.sum())


def bound_at(sources: Sequence[Source], multiplier: float) -> Bound:
    """The point of a network's R(D) where a nat saves 2μ of distortion; μ > 0."""
    points = np.array([source.at(multiplier) for source in sources]).reshape(-1, 2)
    sizes = np.array([source.importance.counts.sum() for source in sources])
    return Bound(multiplier, points[:, 0], points[:, 1], sizes)


def bound(
    sources: Sequence[Source], *, distortion: float | None = None, rate: float | None = None
) -> Bound:
    """The least rate of a network for a distortion, or the least distortion for a rate.

    Args:
        sources: the tensors.
        distortion: the target, nats, > 0.
        rate: the target instead, nats for all weights together, >= 0.

    Returns: the target is met up to 1e-12 of itself, and not exceeded.

    Raises:
        SettingError: not exactly one target, or it is out of range.
    """
    target, by_rate = chosen_target(distortion, rate)

    def little_sent(point: Bound) -> bool:
        return bool(point.nats.sum() <= target if by_rate else point.distortion.sum() > target)

    nothing_sent = [
        source.importance.values[-1] / (4 * source.curve.slope[0]) for source in sources
    ]
    high = low = bound_at(sources, float(max(nothing_sent, default=0)) or sys.float_info.min)
    while little_sent(low) and low.multiplier > 1e-200:
        low = bound_at(sources, low.multiplier / 16)
    while high.multiplier > low.multiplier * (1 + 1e-13):
        middle = bound_at(sources, float(np.sqrt(low.multiplier) * np.sqrt(high.multiplier)))
        low, high = (low, middle) if little_sent(middle) else (middle, high)
    return high if by_rate else low
