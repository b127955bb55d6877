"""R(D) of one random variable under squared error, as a curve that is looked up by its slope."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from onnxrd.errors import SettingError
from onnxrd.rate_distortion.gaussian import BITS
from onnxrd.rate_distortion.histogram import Array, Floats, Histogram, centred

_CELLS = 256
_NODES_PER_OCTAVE = 2
_MOST_OCTAVES = 60
_PARTS = 8  # of the way between two slopes that were iterated for
_RESOLVED = 0.98  # share of the mass whose cells are narrower than the finest error of a table
_TINY = 1e-100  # keeps probabilities from dying and from becoming slow denormal numbers


@dataclass(frozen=True, eq=False)
class RatePoint:
    """Where the Blahut-Arimoto iteration arrived: a point of R(D) and what attains it.

    Attributes:
        nats: the rate.
        distortion: E(w - ŵ)², weight².
        gap: how far the rate is above R(D) at most, nats.
        mass: [M], probabilities of the reproductions.
    """

    nats: float
    distortion: float
    gap: float
    mass: Floats

    @property
    def bits(self) -> float:
        """The rate in bits."""
        return self.nats * BITS


def blahut_arimoto(
    density: Histogram,
    slope: float,
    *,
    reproductions: Floats | None = None,
    tolerance: float = 1e-3,
    most_iterations: int = 10_000,
) -> RatePoint:
    """The point of R(D) with a given slope, for any discrete density.

    q_j ← q_j c_j,  c_j = Σ_i p_i exp(-β (x_i - y_j)²) / Z_i,  Z_i = Σ_j q_j exp(-β (x_i - y_j)²)
    (Blahut 1972). For every q, log max c bounds from above how far it is from the best one.

    Args:
        density: p on the points x, [P].
        slope: β = -dR/dD, nats per weight², > 0.
        reproductions: y, [M]; the points of the density if there are none.
        tolerance: nats, for the gap.
        most_iterations: after which it stops with the gap that is left.
    """
    x, p = density.values, density.mass
    y = x if reproductions is None else reproductions
    q = p if reproductions is None else np.full(len(y), 1 / len(y))
    squares = np.subtract.outer(x, y) ** 2
    nearest = squares.min(axis=1)  # taken out of the exponent, so that no row vanishes
    kernel = np.exp(-slope * (squares - nearest[:, None]))
    for _ in range(most_iterations):
        z = kernel @ q
        c = (p / z) @ kernel
        gap = math.log(c.max())
        if gap <= tolerance:
            break
        q = np.maximum(q * c, _TINY)
        q /= q.sum()
    z = kernel @ q
    error = float((p / z) @ (kernel * squares) @ q)
    nats = float(slope * (p @ nearest - error) - p @ np.log(z))
    return RatePoint(max(nats, 0.0), error, gap, q)


@dataclass(frozen=True, eq=False)
class Curve:
    """R(D) of one random variable, from zero rate on.

    Between the nodes, rate and log distortion are straight lines in the logarithm of the slope.
    Beyond the last one, slope times distortion stays what it is there: ½ for a smooth density, by
    the Shannon lower bound; less if a part of the mass is in atoms, zero if all of it is.

    Attributes:
        slope: [T], -dR/dD, nats per weight², ascending. At the first the rate leaves zero.
        nats: [T], ascending from 0.
        distortion: [T], E(w - ŵ)², weight², descending from the variance.
    """

    slope: Floats
    nats: Floats
    distortion: Floats

    def at(self, slope: ArrayLike) -> tuple[Floats, Floats]:
        """Rate (nats) and distortion (weight²), [...], at slopes [...] >= 0."""
        with np.errstate(divide="ignore"):
            place = np.log(np.asarray(slope, dtype=np.float64))
        beyond = np.maximum(place - self._places[-1], 0)
        nats = np.interp(place, self._places, self.nats) + self._tail * beyond
        logarithm = np.interp(place, self._places, self._logarithms) - beyond
        return np.asarray(nats), np.exp(logarithm)

    def rate(self, distortion: ArrayLike) -> Floats:
        """R(D), nats, [...], at squared errors [...] > 0."""
        fineness = -np.log(np.asarray(distortion, dtype=np.float64))
        nodes = -self._logarithms
        beyond = np.maximum(fineness - nodes[-1], 0)
        return np.asarray(np.interp(fineness, nodes, self.nats) + self._tail * beyond)

    @cached_property
    def _places(self) -> Floats:
        return np.log(self.slope)

    @cached_property
    def _logarithms(self) -> Floats:
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.distortion))

    @cached_property
    def _tail(self) -> float:
        return float(self.slope[-1] * self.distortion[-1])


def gaussian_curve(variance: float) -> Curve:
    """R(D) of a Gaussian, exactly: all of it lies beyond one node.

    Raises:
        SettingError: the variance is negative or not finite.
    """
    if not 0 <= variance < math.inf:
        raise SettingError(f"variance {variance}: it must be finite and not negative")
    known = variance < np.finfo(np.float64).tiny
    slope = 1.0 if known else 1 / (2 * variance)
    return Curve(np.array([slope]), np.zeros(1), np.array([0.0 if known else float(variance)]))


def empirical_curve(weight: Array, cells: int = _CELLS) -> Curve:
    """R(D) of the density that the weights of a tensor are draws of.

    Where there are more distinct weights than cells, these stand for a continuous density. A cell
    costs a rate of 1/(2n) nats that is mere overfitting, so there are at most 2√n. Up to 5 bits,
    10⁶ Gaussian draws come out 0.001 bits too low, 10⁴ about 0.01, 1000 about 0.06.

    Args:
        weight: [*weight], n finite numbers.
        cells: at most so many points.

    Raises:
        SettingError: there is no weight, or one is not finite.
    """
    counted = centred(weight)
    density = counted.merged(max(min(cells, 2 * math.isqrt(weight.size)), 2))
    return tabulated_curve(density, atoms=density is counted)


def tabulated_curve(density: Histogram, *, atoms: bool = False) -> Curve:
    """R(D) by Blahut-Arimoto at slopes √2 apart, from zero rate to where the points are resolved.

    Args:
        density: [P] points; 256 take a third of a second.
        atoms: the points are all there is. Otherwise they stand for the cells of a continuous
            density, and the table ends where errors would become finer than cells.
    """
    variance = density.variance
    if len(density.values) < 2 or variance < np.finfo(np.float64).tiny:
        return gaussian_curve(0.0)
    first = _critical_slope(density)
    octaves = math.log2(_finest_slope(density, atoms)) - math.log2(first)
    nodes = math.ceil(_NODES_PER_OCTAVE * min(max(octaves, 0), _MOST_OCTAVES))
    slopes = first * 2 ** (np.arange(nodes + 1) / _NODES_PER_OCTAVE)
    reached = [_best_point(density, slope, atoms) for slope in slopes[1:]]
    nats = np.maximum.accumulate([0.0, *(point.nats for point in reached)])
    distortion = np.minimum.accumulate([variance, *(point.distortion for point in reached)])
    return _refined(Curve(slopes, nats, distortion))


def _best_point(density: Histogram, slope: float, atoms: bool) -> RatePoint:
    """A point of R(D); a few atoms are best approximated by themselves or by what lies between."""
    point = blahut_arimoto(density, slope)
    if not atoms:
        return point
    between = np.linspace(density.values[0], density.values[-1], _CELLS)
    other = blahut_arimoto(density, slope, reproductions=between)
    return min(point, other, key=lambda reached: reached.nats + slope * reached.distortion)


def _refined(curve: Curve) -> Curve:
    """More nodes on cubics in the log distortion, whose derivatives there are known: -slope · D."""
    part = np.arange(_PARTS) / _PARTS
    fineness = -np.log(curve.distortion)
    start, end = curve.nats[:-1, None], curve.nats[1:, None]
    tangent = curve.slope * curve.distortion
    step = np.diff(fineness)[:, None]
    bend = (1 - part) * step * tangent[:-1, None] - part * step * tangent[1:, None]
    nats = start + part**2 * (3 - 2 * part) * (end - start) + part * (1 - part) * bend

    def between(nodes: Floats) -> Floats:
        return np.append(nodes[:-1, None] + part * np.diff(nodes)[:, None], nodes[-1])

    return Curve(
        np.exp(between(np.log(curve.slope))),
        np.maximum.accumulate(np.append(nats, curve.nats[-1])),
        np.exp(-between(fineness)),
    )


def _critical_slope(density: Histogram) -> float:
    """The slope at which the rate leaves zero, nats per weight².

    Up to there all mass at the mean is optimal: c_j <= 1 for all other reproductions (see
    `blahut_arimoto`). It is 1/(2σ²) for a Gaussian and less if a few weights make up the variance.
    """
    x, p = density.values - density.mean, density.mass
    saved = x * (2 * x[:, None] - x)  # [P, M], of the squared error if x_j takes the mean's place
    low, high = 1e-12 / density.variance, 1 / (2 * density.variance)
    while high > low * (1 + 1e-9):
        slope = math.sqrt(low * high)
        c = p @ np.exp(np.minimum(slope * saved, 500))
        low, high = (low, slope) if c.max() > 1 + 1e-9 else (slope, high)
    return low


def _finest_slope(density: Histogram, atoms: bool) -> float:
    """The slope of the last node: all atoms told apart, or an error as fine as the widest cells."""
    gaps = np.diff(density.values)
    if atoms:
        return float(20 / gaps.min() ** 2)
    widths = (np.append(gaps, gaps[-1]) + np.append(gaps[0], gaps)) / 2
    order = np.argsort(widths)
    resolved = int(np.searchsorted(np.cumsum(density.mass[order]), _RESOLVED))
    return float(1 / (2 * widths[order[min(resolved, len(order) - 1)]] ** 2))
