"""Code words packed into lanes of equally many bytes, each beginning with a whole word."""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from onnxrd.encodings.entropy.code import Code

CHUNK = 1 << 20
"""Symbols packed at a time, to bound the memory."""


def cuts(lengths: NDArray[np.integer], lane: int) -> NDArray[np.int64]:
    """Where lanes begin: each holds as many whole words as fit.

    Args:
        lengths: [m], bits of each word, m > 0.
        lane: bits of a lane, at least as many as the longest word.

    Returns:
        [lanes + 1], index of the first word of each lane, and m.
    """
    starts = [0]
    while starts[-1] < len(lengths):
        first = starts[-1]
        ends = np.cumsum(lengths[first : first + CHUNK], dtype=np.int64)
        complete = first + len(ends) == len(lengths)
        here = reached = 0
        while here < len(ends):
            here = bisect_right(ends, reached + lane, here)
            if here == len(ends) and not complete:
                break  # what follows may fit in, too
            starts.append(first + here)
            reached = int(ends[here - 1])
    return np.array(starts)


def packed(ids: NDArray[np.integer], code: Code, steps: int) -> NDArray[np.uint8]:
    """The lanes [lanes, steps], each filled up with zeros.

    The zeros behind the last word of a lane are fewer than the bits of the next word, so they are
    no word; only behind the very last word there may be words of zeros, see `spare_words`.

    Args:
        ids: [m], the symbols.
        code: their code.
        steps: bytes of a lane.
    """
    starts = cuts(code.short_lengths[ids], 8 * steps)
    result = np.zeros((len(starts) - 1, steps), np.uint8)
    at_once = max(1, CHUNK * (len(starts) - 1) // len(ids))
    for lane in range(0, len(result), at_once):
        bounds = starts[lane : lane + at_once + 1]
        result[lane : lane + at_once] = _rows(ids, bounds, code, steps)
    return result


def spare_words(last_lane: NDArray[np.integer], code: Code, steps: int) -> int:
    """How many words of zeros follow the last word.

    Args:
        last_lane: bits of the words of the last lane.
        code: their code.
        steps: bytes of a lane.
    """
    return int(8 * steps - last_lane.sum(dtype=np.int64)) // code.longest


def _rows(
    ids: NDArray[np.integer], starts: NDArray[np.int64], code: Code, steps: int
) -> NDArray[np.uint8]:
    """Some of the lanes: [len(starts) - 1, steps]."""
    some = ids[starts[0] : starts[-1]]
    lengths, words = code.lengths[some], code.words[some]
    ends = np.cumsum(lengths)
    firsts = np.concatenate([[0], ends])[starts[:-1] - starts[0]]
    lane = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    position = ends - lengths - firsts[lane] + lane * (8 * steps)
    bits = np.zeros(8 * steps * (len(starts) - 1), np.uint8)
    for bit in range(code.longest):
        longer = lengths > bit
        bits[position[longer] + bit] = words[longer] >> (lengths[longer] - 1 - bit) & 1
    return np.packbits(bits).reshape(-1, steps)
