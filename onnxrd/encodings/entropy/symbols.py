"""Runs of codes as symbols."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIRECT = 1 << 22
"""So many possible runs are counted in a table, more by sorting."""


@dataclass(frozen=True, eq=False)
class Symbols:
    """Codes as a row of symbols from an alphabet.

    Attributes:
        ids: [⌈n/d⌉], which symbol.
        runs: [A, d], the codes that each symbol stands for, A ≥ 2.
        counts: [A], how often each occurs.
    """

    ids: NDArray[Any]
    runs: NDArray[np.int64]
    counts: NDArray[np.int64]


def symbols(codes: Sequence[NDArray[Any]], run: int) -> Symbols | None:
    """The runs of the codes, one array after the other, filled up with zeros at the end.

    Args:
        codes: integers, signed; any shapes.
        run: d, how many codes a symbol stands for.

    Returns:
        The symbols, None if there are too many possible ones to number them in 62 bits.
    """
    low = min(0, *(int(c.min()) for c in codes))
    base = max(1, *(int(c.max()) + 1 for c in codes)) - low
    if base**run > 1 << 62:
        return None
    size = sum(c.size for c in codes)
    rows = np.zeros(-(-size // run) * run, np.int64)
    np.concatenate([c.ravel() for c in codes], out=rows[:size], casting="unsafe")
    rows -= low
    keys = rows.reshape(-1, run) @ (base ** np.arange(run - 1, -1, -1, dtype=np.int64))
    if base**run <= DIRECT:
        counts = np.bincount(keys, minlength=2)
        used = np.flatnonzero(counts)
        ids, counts = (np.cumsum(counts > 0) - 1)[keys], counts[used]
    else:
        used, ids, counts = np.unique(keys, return_inverse=True, return_counts=True)
    if len(used) == 1:  # a code needs two; the other never occurs
        used, counts = np.append(used, (used[0] + 1) % max(2, base)), np.append(counts, 0)
    digits = used[:, None] // base ** np.arange(run - 1, -1, -1, dtype=np.int64) % base
    return Symbols(ids, digits + low, counts)
