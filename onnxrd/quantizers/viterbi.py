"""The cheapest path through the eight-state trellis of `onnxrd.quantizers.trellis`.

The bits Q_{t-1}, Q_t, Q_{t+1} are the state at step t. Q_t says which grid the weight is on, and
with the parity p of its code Q_{t+2} = Q_{t+1} + Q_{t-1} + p. Viterbi (1967) keeps, step by step,
the cheapest way to each state. All segments of the weight take a step at the same time: what came
long before a segment hardly matters for where its cheapest paths merge, so each begins a little
before its start, with all states alike.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.quantizers.coded import best_step, coded, fitted_step
from onnxrd.quantizers.trellis import Trellis

Array = NDArray[Any]
Floats = NDArray[np.float32]

SEGMENT = 128
WARM = 32
"""Steps before a segment in which the costs of its states settle."""

AT_ONCE = 1 << 19
"""Weights whose paths are found together, to bound the memory."""

PRICE = 16.0
"""Bits that the mean squared step costs, where the step is best: 1 to 4 bits, Gaussian weights."""

_STATE = np.arange(8)
_FROM = _STATE >> 1, 4 + (_STATE >> 1)
"""[8], the two states before each: of Q_{t-1} = 0 and of 1."""

_PARITY = (_STATE ^ _STATE >> 1) & 1
_BRANCH = 2 * (_STATE >> 2) + _PARITY, 2 * (_STATE >> 2) + (1 - _PARITY)
"""[8], the branches from there: 2 Q + p."""


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
    result = Trellis(coded(weight, importance, slope, step, decide), np.asarray(step))
    fitted = fitted_step(weight, result.units(), importance, step)
    return Trellis(result.codes, np.asarray(weight.dtype.type(fitted)))


def decide(units: Floats, price: Floats, bits: Floats) -> NDArray[np.int16]:
    """Codes on the cheapest path, see `onnxrd.quantizers.coded.Decide`."""
    codes = np.empty(units.size, np.int16)
    state = 0
    for start in range(0, units.size, AT_ONCE):
        some = slice(start, start + AT_ONCE)
        costs, best = _branches(units[some], price[some], bits)
        path, state = cheapest_path(costs, state)
        codes[some] = np.take_along_axis(best, path[None], axis=0)[0]
    return codes


def _branches(units: Floats, price: Floats, bits: Floats) -> tuple[Floats, NDArray[np.int16]]:
    """The cheapest code of each grid and parity, and its cost: [4, n] each, in row 2 Q + p."""
    found = [
        _cheapest(-units if mirrored else units, price, bits, parity)
        for mirrored in (False, True)
        for parity in (0, 1)
    ]
    costs, codes = zip(*found)
    return np.stack(costs), np.stack(codes)


def _cheapest(
    units: Floats, price: Floats, bits: Floats, parity: int
) -> tuple[Floats, NDArray[np.int16]]:
    """Of the codes of one parity on the grid {0, 1, …, -½, -1½, …}: costs and codes, [n]."""
    reach = len(bits) // 2
    below = (2 * np.floor((units - parity) / 2)).astype(np.int16) + np.int16(parity)
    cost, best = np.full_like(units, np.inf), below
    for codes in (below, below + np.int16(2), np.int16(parity), np.int16(-parity)):
        error = units - (codes - np.clip(codes, -0.5, 0)).astype(np.float32)
        trial = price * error * error + bits[codes + reach]
        cheaper = trial < cost
        cost, best = np.where(cheaper, trial, cost), np.where(cheaper, codes, best)
    return cost, best


def cheapest_path(costs: Floats, start: int = 0) -> tuple[NDArray[np.uint8], int]:
    """The cheapest sequence of branches, nearly.

    Args:
        costs: [4, n], of branch 2 Q + p at each step.
        start: the state at the first step.

    Returns:
        branches: [n].
        end: the state behind the last one, if n is a multiple of `SEGMENT`.
    """
    size = costs.shape[1]
    padded = np.pad(costs, ((0, 0), (0, -size % SEGMENT)))
    steps = np.ascontiguousarray(padded.reshape(4, -1, SEGMENT).transpose(2, 0, 1))
    later, reached = _survivors(steps, start)
    segments = np.arange(steps.shape[2])
    state = np.tile(_STATE[:, None], (1, len(segments)))
    for choice in later[::-1]:  # where each end comes from
        state = state >> 1 | choice[state, segments] << 2
    ends = np.empty(len(segments), np.intp)
    ends[-1] = reached[:, -1].argmin()
    for segment in segments[:0:-1]:
        ends[segment - 1] = state[ends[segment], segment]
    branches, here = np.empty((SEGMENT, len(segments)), np.uint8), ends
    end = int(ends[-1])
    for branch, choice in zip(branches[::-1], later[::-1]):
        came = choice[here, segments]
        branch[:] = here >> 2 << 1 | (here ^ here >> 1 ^ came) & 1
        here = here >> 1 | came << 2
    return branches.T.ravel()[:size], end


def _survivors(steps: Floats, start: int) -> tuple[NDArray[np.uint8], Floats]:
    """Viterbi's forward pass through all segments.

    Args:
        steps: [T, 4, segments], costs of the branches.
        start: the state in which the first segment begins.

    Returns:
        later: [T, 8, segments], for each state which of the two before it the path came from.
        reached: [8, segments], costs of the paths at the end, up to a constant.
    """
    later = np.empty((len(steps), 8, steps.shape[2]), np.uint8)
    reached = np.zeros((8, steps.shape[2]), np.float32)
    for t in range(-WARM, len(steps)):
        if t == 0:
            reached[:, 0] = np.inf
            reached[start, 0] = 0
        costs = steps[t] if t >= 0 else np.roll(steps[t], 1, axis=1)
        first, second = (reached[f] + costs[b] for f, b in zip(_FROM, _BRANCH))
        if t >= 0:
            np.less(second, first, out=later[t], casting="unsafe")
        reached = np.minimum(first, second)
        reached -= reached.min(axis=0)
    return later, reached
