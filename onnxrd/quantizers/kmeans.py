"""Weighted k-means of one weight: the codebook of a given size with the least distortion."""

from numbers import Integral
from typing import Any

import numpy as np

from onnxrd.errors import SettingError
from onnxrd.quantizers.measures import checked_importance
from onnxrd.quantizers.partition import Floats, Ints, Points, partition
from onnxrd.quantizers.quantized import Array, Codebook

_MAX_CLUSTERS = 65536
_MAX_LLOYD = 1000  # two or three suffice

MOST_POINTS = 1 << 22
"""Points that cells are sought for; Lloyd's iterations see every weight."""

AT_ONCE = 1 << 20
"""Weights that are merged to points together, to bound the memory."""


def weighted_kmeans(
    weight: Array, importance: Array | None, clusters: int, *, pinned_zero: bool = False
) -> Codebook:
    """The levels that minimise the weighted distortion, and each weight's nearest one.

    min ½ Σ h_i (w_i - q(w_i))²   (Gao et al. 2019, section 5: golden rule 2 for quantization)

    Every level but a pinned one is the weighted mean of the weights that have it, rounded to the
    dtype of the weight, so golden rule 1 holds up to that rounding. Weights without importance get
    the nearest level and do not move it; if none has any, all have the same.

    Args:
        weight:      [*weight], float16, float32 or float64.
        importance:  [*weight], nats per weight², >= 0; None stands for one everywhere.
        clusters:    number of levels, 2 … 65536; fewer are used if the weight has fewer values.
        pinned_zero: one of the levels is exactly 0.

    Returns: codes [*weight] and levels [L], L <= clusters.

    Raises:
        SettingError: clusters is out of range.
        ModelError: the weight has another dtype than float16, float32 or float64, or is not finite.
        ImportanceError: the importance has another shape, or is negative or not finite.
    """
    check_clusters(clusters)
    return fitted_codebook(weight, checked_importance(weight, importance), clusters, pinned_zero)


def check_clusters(clusters: int) -> None:
    """Raise SettingError unless codes for so many levels make sense and fit 16 bits."""
    if not isinstance(clusters, Integral) or not 2 <= clusters <= _MAX_CLUSTERS:
        raise SettingError(
            f"{clusters!r} clusters: choose a whole number from 2 to {_MAX_CLUSTERS}."
        )


def code_dtype(levels: Array) -> np.dtype[Any]:
    """The smallest unsigned type for codes of these levels."""
    return np.min_scalar_type(max(len(levels), 1) - 1)


def fitted_codebook(
    weight: Array, importance: Array, clusters: int, pinned_zero: bool = False
) -> Codebook:
    """`weighted_kmeans` for arguments already checked; a single cluster is allowed."""
    flat = weight.ravel()
    order = sorting_order(flat)
    ascending = flat[order].astype(np.float64)
    levels = np.zeros(int(pinned_zero))
    few = np.count_nonzero(ascending[1:] != ascending[:-1]) < clusters
    if few:
        levels = np.union1d(levels, ascending)
    if not few or len(levels) > clusters:
        mass = importance.reshape(-1)[order].astype(np.float64, copy=False)
        levels = _fitted_levels(ascending, mass, weight.dtype, clusters, pinned_zero)
    counts = np.diff(nearest_starts(ascending, levels), append=len(ascending))
    codes = np.empty(len(flat), code_dtype(levels))
    codes[order] = np.repeat(np.arange(len(levels), dtype=codes.dtype), counts)
    levels = (levels + 0.0).astype(weight.dtype)  # no level is -0.0
    return Codebook(codes.reshape(weight.shape), levels)


def sorting_order(values: Array) -> Array:
    """The order that sorts floats, [n]: 16 bits at a time, for which numpy has a radix sort.

    For a million float32 it takes less than half the time of np.argsort.
    """
    bits = values.view(f"i{values.itemsize}")
    keys = bits >> (8 * values.itemsize - 1)
    keys |= np.iinfo(bits.dtype).min
    keys ^= bits  # as unsigned integers these are in the order of the floats
    order = keys.astype(np.uint16).argsort(kind="stable")
    for shift in range(16, 8 * values.itemsize, 16):
        digits = (keys >> shift).astype(np.uint16)
        order = order[digits[order].argsort(kind="stable")]
    return order


def nearest_starts(ascending: Floats, levels: Floats) -> Ints:
    """[L], where in the ascending weights those begin that are nearest to each level."""
    starts = np.zeros(len(levels), dtype=np.intp)
    starts[1:] = np.searchsorted(ascending, levels[1:] / 2 + levels[:-1] / 2)
    return starts


def _fitted_levels(
    ascending: Floats, mass: Floats, dtype: np.dtype[Any], clusters: int, pinned: bool
) -> Floats:
    """The levels for ascending weights, [n], rounded to a dtype of which they have too many.

    Their importance, `mass`, is scaled in place.
    """
    # Powers of two keep the squares in range and change no digit.
    exponent = _exponent(max(-ascending[0], ascending[-1]))
    value = ascending * np.ldexp(1.0, -exponent)
    shift = 0.0 if pinned else float(value[len(value) // 2])
    value -= shift  # so that weights that differ by little keep their digits
    mass *= np.ldexp(1.0, -_exponent(mass.max()))
    if not mass.any():
        mass = np.ones_like(value)

    def settled(means: Floats) -> Floats:
        levels = np.ldexp(means + shift, exponent).clip(ascending[0], ascending[-1])
        return np.union1d(levels.astype(dtype), np.zeros(int(pinned), dtype)).astype(np.float64)

    levels = settled(_fitted_means(merged_points(value, mass, pinned), clusters))
    moment = mass * value
    for _ in range(_MAX_LLOYD):
        starts = nearest_starts(ascending, levels)
        filled = np.diff(starts, append=len(ascending)) > 0
        masses = np.add.reduceat(mass, starts[filled])
        free = (masses > 0) & ~(pinned & (levels[filled] == 0))
        means = np.add.reduceat(moment, starts[filled])[free] / masses[free]
        before, levels = levels, settled(means)
        if np.array_equal(before, levels):
            break
    return levels


def _exponent(largest: float) -> int:
    """Of the power of two just above; not so small that its reciprocal would be infinite."""
    return max(int(np.frexp(largest)[1]), -1000)


def merged_points(value: Floats, mass: Floats, pinned: bool) -> Points:
    """The values that have mass, without zero if that has a level of its own.

    Masses become integers that sum to about 2^52: differences of their prefix sums are then exact,
    and a cell's mass fits its moment even if an outlier has taken up all the digits. Equal values
    are merged if there are many; a few do no harm, as it never pays to cut between them. So are
    neighbours, to their mean, where there are more than `MOST_POINTS`.

    Args:    value, mass: [n], ascending and >= 0.
    """
    factor = 2.0**52 / mass.sum()
    merged, extent = [], 2 * (value[-1] - value[0]) / MOST_POINTS
    for start in range(0, len(value), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        part = _merged_equals(value[some], np.rint(mass[some] * factor), pinned)
        most = max(2, MOST_POINTS * len(value[some]) // len(value))
        if len(part[0]) > most:
            part = _merged_at(_runs(part[0], most // 2, extent), *part)
        merged.append(part)
    value, mass = (np.concatenate(parts) for parts in zip(*merged))
    sums = np.zeros((2, len(value) + 1))
    whole = mass.astype(np.int64)
    sums[0, 1:] = whole.cumsum(out=whole)  # integers add up eight times as fast as floats
    np.cumsum(np.multiply(mass, value, out=mass), out=sums[1, 1:])
    zero = int(np.searchsorted(value, 0.0)) if pinned else None
    return Points(value, sums[0], sums[1], zero)


def _merged_equals(value: Floats, mass: Floats, pinned: bool) -> tuple[Floats, Floats]:
    """The values that have mass, and their masses; see `merged_points`."""
    gone = mass == 0
    if pinned:
        gone |= value == 0
    if gone.any():
        value, mass = value[~gone], mass[~gone]
    new = value[1:] != value[:-1]
    if np.count_nonzero(new) < 0.9 * len(new):
        starts = np.append(0, np.flatnonzero(new) + 1)
        value, mass = value[starts], np.add.reduceat(mass, starts)
    return value, mass


def _merged_at(starts: Ints, value: Floats, mass: Floats) -> tuple[Floats, Floats]:
    """The means of runs, and their masses."""
    masses = np.add.reduceat(mass, starts)
    return np.add.reduceat(mass * value, starts) / masses, masses


def _runs(value: Floats, number: int, extent: float) -> Ints:
    """Where runs of neighbours begin, of a number and an extent that none of them exceeds much."""
    bins = ((value - value[0]) / extent).astype(np.int32)
    new = np.diff(bins, prepend=-1) > 0
    new[:: -(-len(value) // number)] = True
    return np.flatnonzero(new)


def _fitted_means(points: Points, clusters: int) -> Floats:
    """The means of the best cells, [clusters]; without the pinned one."""
    if len(points) <= clusters - (points.zero is not None):
        return points.x
    cuts, pinned = partition(points, clusters)
    free = np.arange(clusters) != (-1 if pinned is None else pinned)
    means: Floats = np.diff(points.moment[cuts])[free] / np.diff(points.mass[cuts])[free]
    return means
