"""k-means for a cost that grows with the fourth power of the error.

    D = ½ Σ (h_i Δ_i² + ¼ q_i Δ_i⁴)   (half of Gao et al. 2019, table 2, "gradient + Hessian")

Whatever h and q, the nearest level costs a weight least. The level that costs its weights least is
the one real root of a cubic, because D is convex in it. So the two take turns. Cells are runs of
the sorted weights: with prefix sums of h wᵏ and q wᵏ a turn takes no time in proportion to them.
"""

import numpy as np

from onnxrd.quantizers.kmeans import (
    check_clusters,
    code_dtype,
    fitted_codebook,
    nearest_starts,
    sorting_order,
)
from onnxrd.quantizers.measures import checked_importance, weighted_distortion
from onnxrd.quantizers.partition import Floats, Ints
from onnxrd.quantizers.quantized import Array, Codebook

_MAX_TURNS = 1000
_STILL = 1e-5
"""Turns end where no level moves by more than this share of the weights' range."""


def quartic_kmeans(weight: Array, importance: Array, quartic: Array, clusters: int) -> Codebook:
    """Levels that make D small, from two codebooks of quadratic k-means.

    One minimises ½ Σ h Δ²; the other adds to h the ¼ q Δ² that the first leaves. The result never
    costs more than either.

    Args:
        weight:     [*weight], float16, float32 or float64.
        importance: [*weight], h >= 0.
        quartic:    [*weight], q >= 0.
        clusters:   number of levels, 2 … 65536.

    Returns: codes [*weight] and levels [L], L <= clusters.

    Raises:
        SettingError: clusters is out of range.
        ModelError: the weight has another dtype than float16, float32 or float64, or is not finite.
        ImportanceError: h or q has another shape, or is negative or not finite.
    """
    check_clusters(clusters)
    h, q = (checked_importance(weight, given) for given in (importance, quartic))
    return fitted_quartic(weight, h, q, clusters)


def fitted_quartic(weight: Array, importance: Array, quartic: Array, clusters: int) -> Codebook:
    """`quartic_kmeans` for arguments already checked; a single cluster is allowed."""
    first = fitted_codebook(weight, importance, clusters)
    error = np.subtract(weight, first.dequantize(), dtype=np.float64)
    second = fitted_codebook(weight, importance + 0.25 * quartic * error * error, clusters)
    moments = _Moments(weight, importance, quartic)
    books = [first, second, *(moments.settled(book) for book in (first, second))]
    costs = [weighted_distortion(weight, b.dequantize(), importance, quartic) for b in books]
    return books[int(np.argmin(costs))]


class _Moments:
    """Sorted weights with prefix sums: all that the turns need to know.

    Args:
        weight, importance, quartic: [*weight].
    """

    def __init__(self, weight: Array, importance: Array, quartic: Array) -> None:
        flat = weight.ravel()
        self._order, self._shape, self._dtype = sorting_order(flat), weight.shape, weight.dtype
        self._value = x = flat[self._order].astype(np.float64)
        self._shift = float(x[x.size // 2])
        x -= self._shift  # so that weights that differ by little keep their digits
        self._sums = np.zeros((6, x.size + 1))
        for first, mass, powers in ((0, importance, 2), (2, quartic, 4)):
            term = mass.ravel()[self._order].astype(np.float64)
            for k in range(powers):
                np.cumsum(term, out=self._sums[first + k, 1:])
                term *= x

    def settled(self, book: Codebook) -> Codebook:
        """Take turns, from the levels of a codebook on."""
        levels = book.levels.astype(np.float64) - self._shift
        still = _STILL * (self._value[-1] - self._value[0])
        for _ in range(_MAX_TURNS):
            before, levels = levels, self.turn(levels)
            if len(before) == len(levels) and np.abs(levels - before).max() <= still:
                break
        levels = (levels + self._shift).astype(self._dtype) + self._dtype.type(0)  # none is -0.0
        levels = np.unique(levels)
        starts = nearest_starts(self._value, levels.astype(np.float64) - self._shift)
        counts = np.diff(starts, append=self._value.size)
        codes = np.empty(self._value.size, code_dtype(levels))
        codes[self._order] = np.repeat(np.arange(len(levels), dtype=codes.dtype), counts)
        return Codebook(codes.reshape(self._shape), levels)

    def turn(self, levels: Floats) -> Floats:
        """Weights to their nearest levels, and levels to where they cost their weights least.

        Args:    levels: [L], ascending.
        Returns: [L'], L' <= L: levels that are nearest to no weight are gone.
        """
        starts = nearest_starts(self._value, levels)
        ends = np.append(starts[1:], self._value.size)
        filled = starts < ends
        levels, starts, ends = levels[filled], starts[filled], ends[filled]
        h0, h1, q0, q1, q2, q3 = self._about(levels, starts, ends)
        coefficients = q0 / 2, -1.5 * q1, h0 + 1.5 * q2, -h1 - q3 / 2
        low, high = self._value[starts] - levels, self._value[ends - 1] - levels
        return np.unique(levels + rising_root(coefficients, low, high))

    def _about(self, levels: Floats, starts: Ints, ends: Ints) -> tuple[Floats, ...]:
        """H₀ and H₁, Q₀ … Q₃ of each cell, [L] each: Σ h dᵏ and Σ q dᵏ with d = w - level."""
        h0, h1, q0, q1, q2, q3 = self._sums[:, ends] - self._sums[:, starts]
        c = levels
        return (
            h0,
            h1 - c * h0,
            q0,
            q1 - c * q0,
            q2 - c * (2 * q1 - c * q0),
            q3 - c * (3 * q2 - c * (3 * q1 - c * q0)),
        )


def rising_root(coefficients: tuple[Floats, ...], low: Floats, high: Floats) -> Floats:
    """Where cubics that never fall are zero, [L], by Newton steps kept within brackets.

    Half the derivative of a cell's cost, with the way s from its level as unknown, is such a cubic:
    ½ Q₀ s³ - 3/2 Q₁ s² + (H₀ + 3/2 Q₂) s - (H₁ + ½ Q₃). It is zero between the smallest and the
    largest w - level. A step that leaves the bracket becomes a bisection.

    Args:
        coefficients: (a, b, c, d) of a s³ + b s² + c s + d, [L] each.
        low: [L], where it is <= 0, rounding aside.
        high: [L], where it is >= 0.

    Returns: the root; the place in the bracket next to 0 where all is zero.
    """
    a, b, c, d = coefficients
    s: Floats = np.clip(np.zeros_like(low), low, high)
    for _ in range(100):
        value = ((a * s + b) * s + c) * s + d
        slope = (3 * a * s + 2 * b) * s + c
        low, high = np.where(value < 0, s, low), np.where(value > 0, s, high)
        moved = s - np.divide(value, slope, out=np.zeros_like(s), where=slope > 0)
        middle = np.where(value == 0, s, (low + high) / 2)
        moved = np.where((moved >= low) & (moved <= high) & (slope > 0), moved, middle)
        if np.array_equal(moved, s):
            break
        s = moved
    return s
