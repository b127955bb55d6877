"""The cheapest path through the trellis of `onnxrd.quantizers.trellis`.

Viterbi (1967) keeps, step by step, the cheapest way to each state. All segments of a weight take a
step at the same time: what came long before a segment hardly matters for where its cheapest paths
merge, so each begins a little before its start, with all states alike. Short paths are found
without segments, see `onnxrd.quantizers.short_paths`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.quantizers.coded import best_step, coded, fitted_step
from onnxrd.quantizers.short_paths import shortest
from onnxrd.quantizers.trellis import AFTER, DELAYS, STATES, Trellis, state_bits, units

Array = NDArray[Any]
Floats = NDArray[np.float32]

SEGMENT = 128
"""Steps of a segment, about."""

WARM = 40
"""Steps before a segment in which the costs of its states settle."""

SHORT = 512
"""Steps up to which a path is found without segments: exactly, and not more slowly."""

AT_ONCE = 1 << 18
"""Weights whose paths are found together, to bound the memory."""

PRICE = 14.0
"""Bits that the mean squared step costs, where the step is best: 1 to 4 bits, Gaussian weights."""


COARSER = 1.3
"""Of a trellis of the same error, the step over that of a grid: 1.22 at 3 bits, 1.39 at 2."""


def _before() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The two states before each and the branches 2 Q + p from there: [2, 32] each."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(STATES)]
    for (state, parity), after in np.ndenumerate(AFTER):
        found[after].append((state, 2 * (state & 1) + parity))
    table = np.array(found, np.intp)
    return table[:, :, 0].T, table[:, :, 1].T


_FROM, _BRANCH = _before()
_BRANCHES = _BRANCH.astype(np.uint8)

_MIRROR = np.array([[1], [1], [-1], [-1]], np.float32)
_PARITY = np.array([[0], [1], [0], [1]], np.float32)
"""Of the rows 2 Q + p, [4, 1] each: the sign of the grid, and p."""


def on_trellis(weight: Array, importance: Array, slope: float, *, coarser: float = 1.0) -> Trellis:
    """Trellis-coded quantization that costs the least, ½ h (w - ŵ)² + slope · bits.

    Args:
        weight: [*weight].
        importance: [*weight], h >= 0, not all 0.
        slope: what a bit is worth, in the unit of the distortion, > 0.
        coarser: factor on the mean square of the step. Larger ones, which cost more, reach rates
            between the least at which a grid is worth its bits and zero.
    """
    step = best_step(weight, importance, slope, PRICE * coarser)
    codes = coded(weight, importance, slope, step, _decide)
    levels = units(codes.ravel(), state_bits(codes.ravel())).reshape(weight.shape)
    step = fitted_step(weight, levels, importance, step)
    return Trellis(codes, np.asarray(weight.dtype.type(step)))


def round_to_trellis(weight: Array, step: float) -> Trellis:
    """The nearest point of a trellis, which is about as near as on a grid, for fewer bits.

    Args:
        weight: [*weight].
        step: of the grid that it stands in for, see `onnxrd.quantizers.grid.round_to_grid`.
    """
    step *= COARSER
    flat = np.asarray(weight, np.float32).ravel() / np.float32(step)
    free = np.zeros(2 * int(np.ceil(np.abs(flat).max(initial=0))) + 5, np.float32)
    codes = _decide(flat, np.ones_like(flat), free).reshape(weight.shape)
    return Trellis(codes, np.asarray(weight.dtype.type(step)))


def _decide(weights: Floats, price: Floats, bits: Floats) -> NDArray[np.int16]:
    """Codes on the cheapest path, see `onnxrd.quantizers.coded.Decide`."""
    codes = np.empty(weights.size, np.int16)
    state = 0
    for start in range(0, weights.size, AT_ONCE):
        some = slice(start, start + AT_ONCE)
        costs, best = branches(weights[some], price[some], bits)
        path, _, state = cheapest_path(costs, state)
        codes[some] = np.take_along_axis(best, path[None], axis=0)[0]
    return codes


def branches(weights: Floats, price: Floats, bits: Floats) -> tuple[Floats, NDArray[np.int16]]:
    """The cheapest code of each grid and parity, and its cost: [4, n] each, in row 2 Q + p.

    Args:
        weights: [n], in steps.
        price: [n], what a squared step costs, in bits.
        bits: [2R+1], of the codes, code k at R + k; R exceeds the weights by 2.
    """
    mirrored, below = _below(weights)
    reach, odd = len(bits) // 2, np.broadcast_to(_PARITY, below.shape)
    cost, best = np.full_like(below, np.inf), below
    for codes in (below, below + 2, odd, -odd):
        error = mirrored - (codes - np.clip(codes, -0.5, 0))
        trial = price * error * error + bits[codes.astype(np.intp) + reach]
        cheaper = trial < cost
        cost, best = np.where(cheaper, trial, cost), np.where(cheaper, codes, best)
    return cost, best.astype(np.int16)


def nearest_branches(weights: Floats) -> tuple[Floats, NDArray[np.int16]]:
    """`branches` where all codes cost the same and a squared step costs one.

    Args:
        weights: [n], in steps.
    """
    mirrored, below = _below(weights)
    codes = np.stack([below, below + 2])
    errors = mirrored - codes + np.clip(codes, -0.5, 0)
    errors *= errors
    below += 2 * (errors[1] < errors[0])
    return np.minimum(errors[0], errors[1]), below.astype(np.int16)


def _below(weights: Floats) -> tuple[Floats, Floats]:
    """The weights on each grid, by row 2 Q + p, and the codes of the parity just below them."""
    mirrored = _MIRROR * weights
    return mirrored, 2 * np.floor((mirrored - _PARITY) / 2) + _PARITY


def cheapest_path(
    costs: Floats, start: int | None = 0, end: int | None = None, *, segment: int = SEGMENT
) -> tuple[NDArray[np.uint8], int, int]:
    """The cheapest sequence of branches, nearly; up to `SHORT`, exactly.

    Args:
        costs: [4, n], of branch 2 Q + p at each step; n > 0.
        start: the state at the first step; None for the best.
        end: the state behind the last one; None for the best. Given both, n is at least 5.
        segment: steps of a segment, about.

    Returns:
        branches: [n].
        start: the state at the first step.
        end: the state behind the last one.
    """
    size = costs.shape[1]
    if size <= SHORT:
        return shortest(costs, start, end)
    length = -(-size // max(1, round(size / segment)))
    while (size - 1) % length + 1 < DELAYS:  # of the first segment: too few for it to meet the next
        length += 1
    segments = -(-size // length)
    idle = segments * length - size  # steps that the first segment has too many
    padded = np.pad(costs, ((0, 0), (idle, 0)))
    steps = np.ascontiguousarray(padded.reshape(4, segments, -1).transpose(2, 0, 1))
    later, reached = _survivors(steps, start, idle, min(WARM, 3 * segment // 4))
    if end is None:
        end = int(reached[:, -1].argmin())
    branches, starts = _traced(later, idle)
    ends = np.full(segments, end, np.intp)
    for number in range(segments - 1, 0, -1):
        ends[number - 1] = starts[ends[number], number]
    path = branches[:, ends, np.arange(segments)]
    return path.T.ravel()[idle:], int(starts[ends[0], 0]), end


def _traced(later: NDArray[np.uint8], idle: int) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """All survivors back from all ends: their branches [T, 32, segments], starts [32, segments].

    Args:
        later: see `_survivors`.
        idle: the step at which the first segment begins.
    """
    segments = later.shape[2]
    each = np.arange(segments)
    branches = np.empty(later.shape, np.uint8)
    state = np.repeat(np.arange(STATES)[:, None], segments, axis=1)
    for t in range(len(later) - 1, -1, -1):
        taken = later[t].take(state * segments + each) * np.intp(STATES) + state
        _BRANCHES.take(taken, out=branches[t], mode="clip")
        if t >= idle:
            state = _FROM.take(taken)
        else:
            state[:, 1:] = _FROM.take(taken[:, 1:])
    return branches, state


def _survivors(
    steps: Floats, start: int | None, idle: int, warm: int
) -> tuple[NDArray[np.uint8], Floats]:
    """Viterbi's forward pass through all segments.

    Args:
        steps: [T, 4, segments], costs of the branches.
        start: the state in which the first segment begins, None for any.
        idle: the step at which it begins.
        warm: steps that the others take before, to settle.

    Returns:
        later: [T, 32, segments], for each state which of the two before it the path came from.
        reached: [32, segments], costs of the paths at the end, up to a constant.
    """
    segments = steps.shape[2]
    later = np.empty((len(steps), STATES, segments), np.uint8)
    reached = np.zeros((STATES, segments), np.float32)
    both, branch = np.empty((2, 2, STATES, segments), np.float32)
    for t in range(-warm if segments > 1 else 0, len(steps)):
        if t == idle:
            reached[:, 0] = 0 if start is None else np.inf
            reached[start or 0, 0] = 0
        costs = steps[t] if t >= 0 else np.roll(steps[t], 1, axis=1)
        reached.take(_FROM, axis=0, out=both, mode="clip")
        costs.take(_BRANCH, axis=0, out=branch, mode="clip")
        both += branch
        first, second = both
        if t >= 0:
            np.less(second, first, out=later[t], casting="unsafe")
        np.minimum(first, second, out=reached)
        if t % 16 == 0:
            reached -= reached.min(axis=0)
    return later, reached
