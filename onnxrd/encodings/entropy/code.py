"""Huffman codes in canonical form, described by the shape of their tree."""

import heapq
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

SHORTEST_LANE, LONGEST_LANE = 512, 4096
"""Bits, see `onnxrd.encodings.entropy.automaton.STEPS`."""


class Coded(Protocol):
    """Symbols as words of bits, to be cut into lanes."""

    @property
    def lengths(self) -> NDArray[np.uint8]:
        """[m], bits of each symbol's word, behind other words."""

    def first(self, index: int) -> int:
        """Bits of a symbol's word at the beginning of a lane."""

    def words(
        self, index: Integers, first: NDArray[np.bool_]
    ) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Bits of words and the words as numbers, first bit most significant, [n] each.

        Args:
            index: [n], which symbols.
            first: [n], which of them begin a lane.
        """

    def spare(self, bits: int) -> int:
        """How many symbols so many zeros behind the last word make."""


def lost(bits: float, each: float) -> float:
    """Bits that lanes lose, about, in the best length of lanes: some each, and half of the last.

    Args:
        bits: in all lanes.
        each: bits lost in each of them.
    """
    lane = min(max(math.sqrt(2 * bits * each), SHORTEST_LANE), LONGEST_LANE)
    return bits * each / lane + lane / 2


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
    def states(self) -> int:
        """Of the automaton that decodes it, with those that fill up the description's last byte."""
        return 4 * self.description.nbytes

    @property
    def aside(self) -> int:
        """Bytes that a state takes at load, besides transitions."""
        return 0

    @property
    def shortest(self) -> int:
        """Bits of the shortest code word."""
        return int(self.lengths.min())

    @property
    def longest(self) -> int:
        """Bits of the longest code word; one of them consists of zeros."""
        return int(self.lengths.max())

    @property
    def description(self) -> NDArray[np.uint8]:
        """All that a decoder needs to know: the children, eight to the byte."""
        return np.packbits(self.inner)

    @property
    def nbytes(self) -> int:
        """Of the description."""
        return self.description.nbytes

    def bits(self, counts: NDArray[Any]) -> float:
        """Of symbols that occur so often [A], about, what lanes lose included."""
        bits = float(counts @ self.lengths)
        return bits + lost(bits, 2)

    def coded(self, ids: NDArray[np.integer]) -> "CodedHuffman":
        """Symbols [m] in this code."""
        return CodedHuffman(self, ids)


@dataclass(frozen=True, eq=False)
class CodedHuffman:
    """Symbols in such a code, each of which has the same word everywhere.

    Attributes:
        code: the code.
        ids: [m], the symbols.
    """

    code: Code
    ids: NDArray[np.integer]

    @cached_property
    def lengths(self) -> NDArray[np.uint8]:
        """[m], bits of the words."""
        return np.asarray(self.code.lengths.astype(np.uint8)[self.ids])

    def first(self, index: int) -> int:
        """Bits of a word at the beginning of a lane."""
        return int(self.lengths[index])

    def words(
        self, index: Integers, first: NDArray[np.bool_]
    ) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Bits of words and the words as numbers, [n] each; see `Coded`."""
        ids = self.ids[index]
        return self.code.lengths[ids], self.code.words[ids]

    def spare(self, bits: int) -> int:
        """How many symbols so many zeros make."""
        return bits // self.code.longest


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
