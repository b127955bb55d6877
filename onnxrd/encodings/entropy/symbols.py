"""Runs of codes as symbols."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

DIRECT = 1 << 22
"""So many possible runs are counted in a table, more by sorting."""

MOST = 1 << 14
"""More symbols are not considered: onnxruntime makes a table of 256 transitions for each, at
load."""

CHUNK = 1 << 20
"""Codes that are worked on together, to bound the memory."""


@dataclass(frozen=True, eq=False)
class Symbols:
    """Codes as a row of symbols from an alphabet.

    Attributes:
        ids: [⌈n/d⌉], which symbol.
        runs: [A, d], the codes that each symbol stands for, A ≥ 2.
        counts: [A], how often each occurs.
    """

    ids: NDArray[np.uint16]
    runs: Integers
    counts: Integers


def symbols(codes: Iterable[NDArray[Any]], run: int) -> Symbols | None:
    """The runs of the codes, one array after the other, filled up with zeros at the end.

    Args:
        codes: integers, signed; any shapes. Gone through several times.
        run: d, how many codes a symbol stands for.

    Returns:
        The symbols, None if there are too many, or too many possible ones to number in 62 bits.
    """
    low, high, size = 0, 0, 0
    for array in codes:
        low, high = min(low, int(array.min())), max(high, int(array.max()))
        size += array.size
    base = high + 1 - low
    if base**run > 1 << 62:
        return None
    powers = base ** np.arange(run - 1, -1, -1, dtype=np.int64)

    def keys() -> Iterator[Integers]:
        for rows in _rows(codes, run):
            yield (rows - low) @ powers

    used, counts, numbered = (_tabulated if base**run <= DIRECT else _sorted)(keys, base**run)
    if len(used) > MOST:
        return None
    ids, position = np.empty(-(-size // run), np.uint16), 0
    for some in keys():
        ids[position : position + len(some)] = numbered(some)
        position += len(some)
    if len(used) == 1:  # a code needs two; the other never occurs
        used, counts = np.append(used, (used[0] + 1) % max(2, base)), np.append(counts, 0)
    return Symbols(ids, used[:, None] // powers % base + low, counts)


Keys = Callable[[], Iterator[Integers]]
Found = tuple[Integers, Integers, Callable[[Integers], NDArray[Any]]]
"""Keys that occur, ascending, how often, and their numbers among these."""


def _tabulated(keys: Keys, possible: int) -> Found:
    counts = np.zeros(max(2, possible), np.int64)
    for some in keys():
        counts += np.bincount(some, minlength=len(counts))
    used = np.flatnonzero(counts)
    numbers = np.cumsum(counts > 0) - 1
    return used, counts[used], numbers.take


def _sorted(keys: Keys, _: int) -> Found:
    """The same by sorting; ends early where there are too many."""
    used, counts = np.zeros((2, 0), np.int64)
    for some in keys():
        more, times = np.unique(some, return_counts=True)
        used, place = np.unique(np.append(used, more), return_inverse=True)
        counts = np.bincount(place, np.append(counts, times), len(used)).astype(np.int64)
        if len(used) > MOST:
            break
    return used, counts, used.searchsorted


def _rows(codes: Iterable[NDArray[Any]], run: int) -> Iterator[Integers]:
    """All codes, [m, d] at a time."""
    left = np.zeros(0, np.int64)
    for array in codes:
        flat = array.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            some = np.append(left, flat[start : start + CHUNK])
            whole = len(some) // run * run
            left = some[whole:]
            yield some[:whole].reshape(-1, run)
    if left.size:
        yield np.pad(left, (0, run - left.size))[None]
