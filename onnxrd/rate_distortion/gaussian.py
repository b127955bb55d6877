"""Gaussian weights: weighted water-filling, and its exact form under correlation.

A weight of variance σ² and importance h has the energy e = ½ h σ², its distortion if nothing is
sent. At multiplier μ it is left with the distortion min(e, μ) and costs ½ log(e/μ) nats where
e > μ. So an infinitesimal nat saves 2μ of distortion, in every weight that is sent at all.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from onnxrd.errors import SettingError
from onnxrd.rate_distortion.histogram import Floats

BITS = 1 / math.log(2)
"""Bits per nat."""

_CHUNK = 1 << 16  # numbers at a time, so that they stay in the cache


def gaussian_rate(variance: ArrayLike, distortion: ArrayLike) -> Floats:
    """R(D) of a Gaussian under squared error.

    R(D) = max(0, ½ log(σ²/D))   (Cover and Thomas, theorem 10.3.2)

    Args:
        variance: [...], weight², >= 0.
        distortion: [...], E(w - ŵ)², weight², > 0.

    Returns: [...], nats.
    """
    ratio = np.divide(variance, distortion, dtype=np.float64)
    return np.asarray(np.log(np.maximum(ratio, 1)) / 2)


@dataclass(frozen=True)
class WaterFilling:
    """The solution of theorem 2.

    Attributes:
        multiplier: μ, the distortion of each weight that is sent; > 0 unless there is none.
        distortion: D = ½ Σ h_i D_i.
        nats: the bound R(D), all weights together.
        size: number of weights.
    """

    multiplier: float
    distortion: float
    nats: float
    size: int

    @property
    def bits(self) -> float:
        """The bound in bits, all weights together."""
        return self.nats * BITS


def water_filling(
    variance: ArrayLike,
    importance: ArrayLike,
    *,
    distortion: float | None = None,
    rate: float | None = None,
) -> WaterFilling:
    """The least rate for a distortion, or the least distortion for a rate; exact, in a few passes.

    R(D) = Σ ½ log(σ_i²/D_i),  D_i = min(2μ/h_i, σ_i²),  ½ Σ h_i D_i = D   (Gao et al. 2019,
    theorem 2, with λ_i = h_i/2; there μ is D_i λ_i as well)

    The distortion is concave in μ and made of straight lines, the rate is convex in log μ and so
    too: Newton's iteration from below never overshoots and stops at the solution. Memory beyond the
    arguments is a megabyte or two.

    Args:
        variance: [*weight] or a scalar, weight², >= 0.
        importance: [*weight] or a scalar, nats per weight², >= 0.
        distortion: the target, nats, > 0; beyond ½ Σ h σ² nothing is sent.
        rate: the target instead, nats for all weights together, >= 0.

    Raises:
        SettingError: not exactly one target, a target out of range, or an argument negative or not
            finite.
    """
    target, by_rate = chosen_target(distortion, rate)
    size, total, peak = 0, 0.0, 0.0
    for energy in _energies(variance, importance):
        if not (np.isfinite(energy).all() and (energy >= 0).all()):
            raise SettingError("variance and importance must be finite and not negative")
        size += energy.size
        total += float(energy.sum())
        peak = max(peak, float(energy.max(initial=0)))

    def step(multiplier: float) -> float:
        """The multiplier that is right if those with an energy above this one are sent."""
        sent, left, logarithms = 0, 0.0, 0.0
        for energy in _energies(variance, importance):
            above = energy > multiplier
            sent += int(np.count_nonzero(above))
            if by_rate:
                logarithms += float(np.log(energy[above]).sum())
            else:
                left += float(energy[~above].sum())
        if not sent:
            return multiplier
        return math.exp((logarithms - 2 * target) / sent) if by_rate else (target - left) / sent

    all_left = not by_rate and target >= total
    multiplier = peak if all_left else _ascend(step)
    if multiplier == 0 < peak:
        raise SettingError("the target asks for more than floating-point numbers can tell apart")
    reached, nats = 0.0, 0.0
    for energy in _energies(variance, importance):
        reached += float(np.minimum(energy, multiplier).sum())
        nats += float(np.log(energy[energy > multiplier] / multiplier).sum()) / 2
    return WaterFilling(multiplier, reached, nats, size)


def chosen_target(distortion: float | None, rate: float | None) -> tuple[float, bool]:
    """The one target that was given, and whether it is a rate.

    Raises:
        SettingError: not exactly one, or it is out of range.
    """
    if (distortion is None) == (rate is None):
        raise SettingError("give a distortion or a rate, and not both")
    if distortion is None:
        assert rate is not None
        if not 0 <= rate < math.inf:
            raise SettingError(f"rate {rate}: choose a finite number of nats, at least 0")
        return float(rate), True
    if not 0 < distortion < math.inf:
        raise SettingError(f"distortion {distortion}: choose a finite number above 0")
    return float(distortion), False


def water_levels(variance: ArrayLike, importance: ArrayLike, multiplier: float) -> Floats:
    """The squared error that each weight is left with, D_i = min(2μ/h_i, σ_i²).

    Args:
        variance: [*weight] or a scalar, weight².
        importance: [*weight] or a scalar, nats per weight².
        multiplier: μ, of `water_filling`.

    Returns: [*weight], weight².
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.divide(2 * multiplier, importance, dtype=np.float64)
    return np.asarray(np.fmin(level, variance))  # without importance, nothing is sent


def _energies(variance: ArrayLike, importance: ArrayLike) -> Iterator[Floats]:
    """½ h σ² of all weights, some at a time."""
    operands = [np.asarray(variance), np.asarray(importance)]
    flags: Any = ["external_loop", "buffered", "zerosize_ok"]
    types: Any = [np.float64, np.float64]
    with np.nditer(
        operands, flags, op_dtypes=types, casting="same_kind", buffersize=_CHUNK
    ) as chunks:
        for v, h in chunks:
            yield np.multiply(v, h) / 2


def _ascend(step: Callable[[float], float]) -> float:
    """The limit of Newton's iteration from zero, which rises until the active set is the right one.

    Rounding may make it fall by a digit at the end; then it is done as well.
    """
    value = 0.0
    while (following := step(value)) > value:
        value = following
    return value


# Correlated weights


def theorem2_bound(covariance: ArrayLike, importance: ArrayLike, distortion: float) -> float:
    """The lower bound as the paper has it; exact only if the weights are uncorrelated.

    ½ log det Σ_W - Σ ½ log D_i,  D_i = min(2μ/h_i, E w_i²)   (Gao et al. 2019, theorem 2)

    For correlated weights it is still below R(D), but loose unless D is small, and may be negative:
    D_i ought to be limited by eigenvalues, not by the variances. See `correlated_bound`.

    Args:
        covariance: [n, n], of the weights.
        importance: [n] or a scalar, nats per weight².
        distortion: nats, > 0.

    Returns: nats, all weights together.
    """
    covariance = np.asarray(covariance, dtype=np.float64)
    variance = np.diagonal(covariance)
    filled = water_filling(variance, importance, distortion=distortion)
    levels = water_levels(variance, importance, filled.multiplier)
    return float(np.linalg.slogdet(covariance)[1] - np.log(levels).sum()) / 2


def correlated_bound(
    covariance: ArrayLike, importance: ArrayLike, distortion: float
) -> WaterFilling:
    """The exact R(D) of jointly Gaussian weights: water-filling on eigenvalues.

    With H the importance, D = ½ E (w - ŵ)ᵀ H (w - ŵ). The energies are the eigenvalues of
    ½ Σ_W^½ H Σ_W^½, those of Λ^½ Σ_W Λ^½ if H = 2Λ is diagonal.

    Args:
        covariance: [n, n], of the weights, positive semidefinite.
        importance: [n], or [n, n] positive semidefinite, or a scalar, nats per weight².
        distortion: nats, > 0.
    """
    values, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
    root = vectors * np.sqrt(np.maximum(values, 0))
    h = np.asarray(importance, dtype=np.float64)
    weighted = h @ root if h.ndim == 2 else h[..., None] * root
    energy = np.linalg.eigvalsh(root.T @ weighted) / 2
    return water_filling(np.maximum(energy, 0), 2.0, distortion=distortion)
