"""Weighted k-means of one weight: the codebook of a given size with the least distortion."""

from typing import Any

import numpy as np

from onnxrd.errors import SettingError
from onnxrd.quantizers.measures import checked_importance
from onnxrd.quantizers.partition import Floats, Points, partition
from onnxrd.quantizers.quantized import Array, Codebook

_MAX_CLUSTERS = 65536
_MAX_LLOYD = 1000  # two or three suffice


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
    if not 2 <= clusters <= _MAX_CLUSTERS:
        raise SettingError(f"{clusters} clusters: choose a number from 2 to {_MAX_CLUSTERS}")


def code_dtype(levels: Array) -> np.dtype[Any]:
    """The smallest unsigned type for codes of these levels."""
    return np.min_scalar_type(max(len(levels), 1) - 1)


def fitted_codebook(
    weight: Array, importance: Array, clusters: int, pinned_zero: bool = False
) -> Codebook:
    """`weighted_kmeans` for arguments already checked; a single cluster is allowed."""
    flat = weight.ravel()
    order = _sorting_order(flat)
    ascending = flat[order]
    levels = ascending[np.append(ascending[1:] != ascending[:-1], True)[: len(ascending)]]
    if pinned_zero:
        levels = np.union1d(levels, np.zeros(1, levels.dtype))
    if len(levels) > clusters:
        levels = _fitted_levels(ascending, importance.ravel()[order], clusters, pinned_zero)
    counts = np.diff(_starts(ascending, levels), append=len(ascending))
    codes = np.empty(len(flat), code_dtype(levels))
    codes[order] = np.repeat(np.arange(len(levels), dtype=codes.dtype), counts)
    return Codebook(codes.reshape(weight.shape), levels + levels.dtype.type(0))  # no level is -0.0


def _sorting_order(values: Array) -> Array:
    """The order that sorts floats, [n]: 16 bits at a time, for which numpy has a radix sort.

    For a million float32 it takes about half the time of np.argsort, and ties keep their order.
    """
    bits = values.view(f"u{values.itemsize}")
    sign = bits.dtype.type(1 << (8 * values.itemsize - 1))
    keys = np.where(bits & sign, ~bits, bits | sign)  # as integers in the order of the floats
    order = keys.astype(np.uint16).argsort(kind="stable")
    for shift in range(16, 8 * values.itemsize, 16):
        digits = (keys >> bits.dtype.type(shift)).astype(np.uint16)
        order = order[digits[order].argsort(kind="stable")]
    return order


def _starts(ascending: Array, levels: Array) -> Array:
    """[L], where in the ascending weights those begin that are nearest to each level."""
    half = levels.astype(np.float64) / 2
    starts = np.zeros(len(levels), dtype=np.intp)
    starts[1:] = np.searchsorted(ascending, half[1:] + half[:-1])
    return starts


def _fitted_levels(ascending: Array, importance: Array, clusters: int, pinned: bool) -> Array:
    """The levels for ascending weights, [n], of more than ``clusters`` distinct values."""
    # Powers of two keep the squares in range and change no digit.
    exponent = int(np.frexp(max(-ascending[0], ascending[-1]))[1])
    value = np.ldexp(ascending.astype(np.float64), -exponent)
    mass = importance.astype(np.float64)
    mass = np.ldexp(mass, -int(np.frexp(mass.max())[1])) if mass.any() else np.ones_like(value)
    shift = 0.0 if pinned else float(value[len(value) // 2])
    value -= shift  # so that weights that differ by little keep their digits

    def settled(means: Floats) -> Array:
        levels = np.ldexp(means + shift, exponent).clip(ascending[0], ascending[-1])
        zero = np.zeros(int(pinned), ascending.dtype)
        return np.union1d(levels.astype(ascending.dtype), zero)

    levels = settled(_fitted_means(_points(value, mass, pinned), clusters))
    moment = mass * value
    for _ in range(_MAX_LLOYD):
        starts = _starts(ascending, levels)
        filled = np.diff(starts, append=len(ascending)) > 0
        masses = np.add.reduceat(mass, starts[filled])
        free = (masses > 0) & ~(pinned & (levels[filled] == 0))
        means = np.add.reduceat(moment, starts[filled])[free] / masses[free]
        before, levels = levels, settled(means)
        if np.array_equal(before, levels):
            break
    return levels


def _points(value: Floats, mass: Floats, pinned: bool) -> Points:
    """The distinct values that have mass; without zero if that has a level of its own.

    Masses become integers that sum to about 2^52: differences of their prefix sums are then exact,
    and a cell's mass fits its moment even if an outlier has taken up all the digits.

    Args:    value, mass: [n], ascending and >= 0.
    """
    prefix = np.cumsum(np.rint(mass * (2.0**52 / mass.sum())))
    last = np.flatnonzero(np.append(value[1:] != value[:-1], True))
    x, mass = value[last], np.diff(prefix[last], prepend=0)
    kept = (mass > 0) & ~(pinned & (x == 0))
    x, mass = x[kept], mass[kept]
    sums = np.zeros((2, len(x) + 1))
    np.cumsum(mass, out=sums[0, 1:])
    np.cumsum(mass * x, out=sums[1, 1:])
    return Points(x, sums[0], sums[1], int(np.searchsorted(x, 0.0)) if pinned else None)


def _fitted_means(points: Points, clusters: int) -> Floats:
    """The means of the best cells, [clusters]; without the pinned one."""
    if len(points) <= clusters - (points.zero is not None):
        return points.x
    cuts, pinned = partition(points, clusters)
    free = np.arange(clusters) != (-1 if pinned is None else pinned)
    means: Floats = np.diff(points.moment[cuts])[free] / np.diff(points.mass[cuts])[free]
    return means
