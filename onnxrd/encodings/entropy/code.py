"""Huffman codes in canonical form, described by the shape of their tree."""

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def huffman_lengths(counts: NDArray[Any]) -> Integers:
    """[A], bits of each symbol's code word, the fewest in all for these counts.

    Huffman, A Method for the Construction of Minimum-Redundancy Codes (1952). Of equal counts the
    earlier symbol is joined first.

    Args:
        counts: [A], how often each symbol occurs, A ≥ 2.
    """
    symbols = len(counts)
    heap = [(int(count), symbol) for symbol, count in enumerate(counts)]
    heapq.heapify(heap)
    parent = np.zeros(2 * symbols - 1, np.int64)
    for joined in range(symbols, 2 * symbols - 1):
        first, left = heapq.heappop(heap)
        second, right = heap[0]
        parent[left] = parent[right] = joined
        heapq.heapreplace(heap, (first + second, joined))
    depth = np.zeros(2 * symbols - 1, np.int64)
    for node in range(2 * symbols - 3, -1, -1):
        depth[node] = depth[parent[node]] + 1
    return depth[:symbols]


@dataclass(frozen=True, eq=False)
class Code:
    """A canonical code: at each depth of its tree inner nodes come first, then leaves.

    Attributes:
        lengths: [A], bits of each code word.
        words: [A], code words as numbers, first bit most significant.
        order: [A], symbols by depth and word: the order in which a walk by breadth meets them.
        inner: [2(A-1)], uint8: for the children of all inner nodes by breadth, whether they are
            inner nodes themselves. This is all that a decoder needs to know of the code.
    """

    lengths: Integers
    words: Integers
    order: Integers
    inner: NDArray[np.uint8]

    @property
    def short_lengths(self) -> NDArray[np.uint8]:
        """The same as `lengths`, in less memory."""
        return self.lengths.astype(np.uint8)

    @property
    def shortest(self) -> int:
        """Bits of the shortest code word."""
        return int(self.lengths.min())

    @property
    def longest(self) -> int:
        """Bits of the longest code word; one of them consists of zeros."""
        return int(self.lengths.max())


def huffman_code(counts: NDArray[Any]) -> Code:
    """The canonical Huffman code for these counts [A], A ≥ 2."""
    lengths = huffman_lengths(counts)
    order = np.argsort(lengths, kind="stable")
    leaves = np.bincount(lengths)
    inner, flags = [1], []
    for depth in range(1, len(leaves)):
        inner.append(2 * inner[-1] - int(leaves[depth]))
        flags += [1] * inner[-1] + [0] * int(leaves[depth])
    first = np.cumsum(leaves) - leaves
    words = np.zeros_like(lengths)
    words[order] = np.array(inner)[lengths[order]] + np.arange(len(order)) - first[lengths[order]]
    return Code(lengths, words, order, np.array(flags, np.uint8))
