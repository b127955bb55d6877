"""Words packed into lanes of equally many bytes, each beginning with a whole word."""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from onnxrd.encodings.entropy.code import Coded

CHUNK = 1 << 20
"""Symbols packed at a time, to bound the memory."""


def cuts(coded: Coded, lane: int) -> NDArray[np.int64]:
    """Where lanes begin: each holds as many whole words as fit.

    Args:
        coded: m symbols, m > 0.
        lane: bits of a lane, at least as many as the longest word.

    Returns:
        [lanes + 1], index of the first word of each lane, and m.
    """
    lengths, starts = coded.lengths, [0]
    while starts[-1] < len(lengths):
        first = starts[-1]
        ends = np.cumsum(lengths[first : first + CHUNK], dtype=np.int64)
        complete = first + len(ends) == len(lengths)
        here = reached = 0
        while here < len(ends):
            start = first + here
            here = bisect_right(
                ends, reached + lane + int(lengths[start]) - coded.first(start), here
            )
            if here == len(ends) and not complete:
                break  # what follows may fit in, too
            starts.append(first + here)
            reached = int(ends[here - 1])
    return np.array(starts)


def packed(coded: Coded, steps: int) -> NDArray[np.uint8]:
    """The lanes [lanes, steps].

    What is left of a lane is filled with the beginning of the word that begins the next one, which
    is no whole word; the last lane with zeros, see `spare_words`.

    Args:
        coded: the symbols.
        steps: bytes of a lane.
    """
    starts = cuts(coded, 8 * steps)
    result = np.zeros((len(starts) - 1, steps), np.uint8)
    at_once = max(1, CHUNK * (len(starts) - 1) // len(coded.lengths))
    for lane in range(0, len(result), at_once):
        bounds = starts[lane : lane + at_once + 1]
        result[lane : lane + at_once] = _rows(coded, bounds, steps)
    return result


def spare_words(coded: Coded, last: int, steps: int) -> int:
    """How many words of zeros follow the last word.

    Args:
        coded: the symbols.
        last: index of the first word of the last lane.
        steps: bytes of a lane.
    """
    behind_first = int(coded.lengths[last + 1 :].sum(dtype=np.int64))
    return coded.spare(8 * steps - coded.first(last) - behind_first)


def _rows(coded: Coded, starts: NDArray[np.int64], steps: int) -> NDArray[np.uint8]:
    """Some of the lanes: [len(starts) - 1, steps]."""
    counts = np.diff(starts) + 1  # with the word that begins the next lane
    counts[-1] -= starts[-1] == len(coded.lengths)
    begins = np.cumsum(counts) - counts
    lane = np.repeat(np.arange(len(counts)), counts)
    index = np.arange(len(lane)) + (starts[:-1] - begins)[lane]
    first = np.zeros(len(lane), bool)
    first[begins] = True
    lengths, words = coded.words(index, first)
    before = np.cumsum(lengths) - lengths
    longest = int(lengths.max())
    width = 8 * steps + longest
    position = before - before[begins][lane] + lane * width
    bits = np.zeros(width * len(counts), np.uint8)
    for bit in range(longest):
        longer = lengths > bit
        bits[position[longer] + bit] = words[longer] >> (lengths[longer] - 1 - bit) & 1
    return np.packbits(bits.reshape(-1, width)[:, : 8 * steps], axis=1)
