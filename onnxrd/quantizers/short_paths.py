"""The cheapest path through a few hundred steps of the trellis: five at a time.

Five steps lead from any state to any other in exactly one way. What these 32 · 32 ways cost are
sums over their branches, for all blocks of five one product of matrices, and a block is then a
single step of Viterbi's algorithm (1967). That is more arithmetic than step by step, in fewer
calls, which is what a column of a layer is made of.
"""

import numpy as np
from numpy.typing import NDArray

from onnxrd.quantizers.trellis import AFTER, DELAYS, STATES

Floats = NDArray[np.float32]


def _ways() -> tuple[NDArray[np.uint8], Floats]:
    """The branches 2 Q + p of all ways, [32 · 32, 5], and as zeros and ones, [5 · 4, 32 · 32].

    A way's number is 32 · (state behind it) + (state before it).
    """
    branches = np.empty((STATES * STATES, DELAYS), np.uint8)
    for before in range(STATES):
        for parities in range(1 << DELAYS):
            state, way = before, []
            for step in range(DELAYS):
                parity = parities >> step & 1
                way.append(2 * (state & 1) + parity)
                state = int(AFTER[state, parity])
            branches[STATES * state + before] = way
    taken = branches[:, :, None] == np.arange(4)
    return branches, np.ascontiguousarray(taken.reshape(len(branches), -1).T, np.float32)


_BRANCHES, _TAKEN = _ways()


def shortest(
    costs: Floats, start: int | None, end: int | None
) -> tuple[NDArray[np.uint8], int, int]:
    """The cheapest sequence of branches, see `onnxrd.quantizers.viterbi.cheapest_path`.

    Args:
        costs: [4, n], of branch 2 Q + p at each step; n > 0.
        start: the state before the first step; None for the best.
        end: the state behind the last one; None for the best.

    Returns: branches, start and end.
    """
    idle = -costs.shape[1] % DELAYS  # steps before the first, of parity zero, that cost nothing
    padded = np.empty((4, costs.shape[1] + idle), np.float32)
    padded[:, idle:] = costs
    padded[0::2, :idle] = 0
    padded[1::2, :idle] = 1 + 2 * costs.max(axis=0).sum()  # no infinity: zero times that is NaN
    blocks = padded.reshape(4, -1, DELAYS).transpose(1, 2, 0).reshape(-1, 4 * DELAYS)
    ways = (blocks @ _TAKEN).reshape(-1, STATES, STATES)
    reached = np.zeros(STATES, np.float32)
    if start is not None:
        reached += np.inf
        reached[_idled(idle) == start] = 0
    came = np.empty(ways.shape[:2], np.intp)
    for way, best in zip(ways, came, strict=True):
        way += reached
        way.argmin(axis=1, out=best)
        way.min(axis=1, out=reached)
    state = end = int(reached.argmin()) if end is None else end
    taken = np.empty(len(came), np.intp)
    for block in range(len(came) - 1, -1, -1):
        before = int(came[block, state])
        taken[block] = STATES * state + before
        state = before
    return _BRANCHES[taken].ravel()[idle:], int(_idled(idle)[state]), end


def _idled(steps: int) -> NDArray[np.intp]:
    """[32], the state behind so many steps of parity zero, by the state before them."""
    states = np.arange(STATES)
    for _ in range(steps):
        states = AFTER[states, 0]
    return states
