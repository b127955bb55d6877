"""Codes in fractions of a bit: asymmetric numeral systems, decoded by an automaton that reads bits.

A state is a number v below L = 2^b. The decoder appends bits to it until it has reached L; there
each of the numbers L … 2L-1 is a slot of one symbol, which is emitted, and v becomes the symbol's
frequency plus the number of its slots below. So a symbol of f slots takes about log₂(L/f) bits
(Duda, Asymmetric numeral systems, 2013; the table variant). The coder goes backwards.

A slot is too much for a rare symbol. 2^k of them share one, behind which k bits tell which it is.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.encodings.entropy.code import lost

Integers = NDArray[np.int64]

SIZES = (8, 9, 10)
"""Candidates for b. A state more takes 256 transitions; a lane begins with b bits."""

STATE = 0.2
"""Bytes of a file that a state fewer is worth: each takes 20 to 30 kB at load."""

MOST_RARE = 12
"""Bits that tell rare symbols apart, at most."""

PARTS = 512
"""Runs of symbols that are coded side by side, each from where the next one begins."""

SHORTEST_PART = 1024
"""Symbols: what comes behind a part mostly changes some hundred of them, at its end."""


@dataclass(frozen=True, eq=False)
class Numerals:
    """A code of this kind.

    Attributes:
        frequencies: [M (+ 1)], slots of the M symbols that have their own, then 1 if others share
            one. Their sum is L.
        rare_bits: k; 0 if none share a slot.
        order: [A], the M symbols, and then those that share a slot.
    """

    frequencies: Integers
    rare_bits: int
    order: Integers

    @cached_property
    def head(self) -> int:
        """b, bits that a lane begins with."""
        return int(self.frequencies.sum()).bit_length() - 1

    @property
    def states(self) -> int:
        """Of the automaton."""
        return (1 << self.head) + (1 << self.rare_bits) - 2

    @property
    def aside(self) -> int:
        """Bytes that a state takes at load, besides transitions: which slots are whose."""
        return 640 + 5 * len(self.frequencies)

    @property
    def shortest(self) -> int:
        """Bits from one symbol to the next, at least."""
        return self.head - (2 * int(self.frequencies.max()) - 1).bit_length() + 1

    @property
    def description(self) -> Integers:
        """All that a decoder needs to know: frequencies, of the shared slot, too, and 2^k."""
        shared = [] if self.rare_bits else [0]
        return np.concatenate([self.frequencies, shared, [1 << self.rare_bits]]).astype(np.int64)

    @property
    def nbytes(self) -> int:
        """Of the description, in varints."""
        return int((-(-_bit_lengths(np.maximum(self.description, 1)) // 7)).sum())

    def bits(self, counts: NDArray[Any]) -> float:
        """Of symbols that occur so often [A], about, what lanes begin with included."""
        sorted_counts = counts[self.order]
        own = len(self.frequencies) - bool(self.rare_bits)
        rare = float(sorted_counts[own:].sum())
        per_symbol = self.head - np.log2(self.frequencies[:own])
        bits = float(sorted_counts[:own] @ per_symbol) + rare * (self.head + self.rare_bits)
        return bits + lost(bits, self.head - 2)

    def coded(self, ids: NDArray[np.integer]) -> "CodedNumerals":
        """Symbols [m] in this code."""
        place = np.empty(len(self.order), np.uint16)
        place[self.order] = np.arange(len(self.order))
        return CodedNumerals(self, place[ids])

    @cached_property
    def tables(self) -> tuple[Integers, Integers]:
        """[L] twice: the symbol of each slot, counted in `order`, and the state that follows.

        Slots of a symbol lie as evenly as can be, in rising order.
        """
        f, i = self.frequencies, np.arange(1 << self.head)
        ends = np.cumsum(f)
        symbol = ends.searchsorted(i, side="right")
        state = i - ends[symbol] + 2 * f[symbol]
        key = ((2 * state + 1) << 20) // f[symbol]
        order = np.argsort(key, kind="stable")
        return symbol[order], state[order]

    @cached_property
    def encoding(self) -> tuple[Integers, Integers, Integers]:
        """The same for the coder: the least that it drops, slots by states, and where they begin.

        [M + 1] bits to drop from a number to get to a state of a symbol, or one more; [L] slots;
        [M + 1] what a symbol's states are counted from there.
        """
        f, (symbol, state) = self.frequencies, self.tables
        slots = np.lexsort((state, symbol)) + (1 << self.head)
        dropped = self.head + 1 - _bit_lengths(f)
        return dropped, slots, np.cumsum(f) - 2 * f


@dataclass(frozen=True, eq=False)
class CodedNumerals:
    """Symbols in such a code.

    Attributes:
        code: the code.
        places: [m], the symbols by their places in `code.order`.
    """

    code: Numerals
    places: NDArray[np.uint16]

    @cached_property
    def lengths(self) -> NDArray[np.uint8]:
        """[m], bits of each symbol's word, behind other words."""
        lengths = np.full(len(self.places), self.code.head, np.uint8)
        states = self.code.tables[1][self._slots[:-1] - (1 << self.code.head)]
        lengths[1:] += np.uint8(1) - _bit_lengths(states).astype(np.uint8)
        return lengths + np.uint8(self.code.rare_bits) * self._rare(self.places)

    def first(self, index: int) -> int:
        """Bits of a symbol's word at the beginning of a lane."""
        return self.code.head + self.code.rare_bits * bool(self._rare(self.places[index]))

    def words(
        self, index: Integers, first: NDArray[np.bool_]
    ) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Bits of words and the words as numbers, [n] each; see `Coded`."""
        places, tail = self.places[index], self.code.rare_bits
        tails = tail * self._rare(places).astype(np.int64)
        lengths = np.where(first, self.code.head + tails, self.lengths[index])
        heads = self._slots[index].astype(np.int64) & (1 << lengths - tails) - 1
        members = places.astype(np.int64) - self._own
        return lengths, heads << tails | np.where(tails > 0, members, 0)

    def spare(self, bits: int) -> int:
        """How many symbols so many zeros behind the last word make."""
        (symbol, state), size = self.code.tables, 1 << self.code.head
        v, count = int(state[self._slots[-1] - size]), 0
        while (bits := bits - (self.code.head + 1 - v.bit_length())) >= 0:
            slot = (v << self.code.head + 1 - v.bit_length()) - size
            v = int(state[slot])
            if self.code.rare_bits and symbol[slot] == self._own:
                bits -= self.code.rare_bits
            count += bits >= 0
        return count

    @cached_property
    def _own(self) -> int:
        """M, symbols that have slots of their own."""
        return len(self.code.frequencies) - bool(self.code.rare_bits)

    def _rare(self, places: NDArray[np.uint16]) -> NDArray[np.bool_]:
        return np.asarray(places >= self._own)

    @cached_property
    def _slots(self) -> NDArray[np.uint16]:
        """[m], the numbers at which symbols are emitted, from L to 2L - 1.

        Each depends on all symbols that follow. Parts begin as if nothing did, and again from
        where the next part turns out to begin, until both ways are the same.
        """
        size, count = 1 << self.code.head, len(self.places)
        parts = max(1, min(PARTS, count // SHORTEST_PART))
        rows = np.zeros((parts, -(-count // parts)), np.int32)
        rows.ravel()[:count] = np.minimum(self.places, len(self.code.frequencies) - 1)
        columns = np.ascontiguousarray(rows.T)
        found = np.zeros(columns.shape, np.uint16)
        begun = np.zeros(parts, np.int64)
        wanted = np.full(parts, size)
        while len(redo := np.flatnonzero(begun != wanted)):
            self._encode(columns, found, redo, wanted[redo])
            begun, wanted = wanted, np.append(found[0, 1:], size).astype(np.int64)
        return np.ascontiguousarray(found.T).ravel()[:count]

    def _encode(
        self, symbols: NDArray[np.int32], found: NDArray[np.uint16], redo: Integers, x: Integers
    ) -> None:
        """Numbers of some columns of symbols, from their ends on, until they are as found before.

        Args:
            symbols: [rows, parts].
            found: [rows, parts], to be filled in.
            redo: [n], which parts.
            x: [n], what comes behind them.
        """
        dropped, slots, offset = self.code.encoding
        f = self.code.frequencies
        for row in range(len(symbols) - 1, -1, -1):
            here = symbols[row, redo]
            shift = dropped[here]
            state = x >> shift
            state = np.where(state < f[here], x >> shift - 1, state)
            x = slots[offset[here] + state]
            if (found[row, redo] == x).all():
                return
            found[row, redo] = x


def numeral_code(counts: NDArray[Any]) -> Numerals | None:
    """The code for symbols that occur so often, [A]; None if there are too many symbols.

    Bits and description are reckoned as they will be: of the sizes and numbers of rare symbols
    that there are to choose from the best is taken.
    """
    order = np.argsort(-counts, kind="stable")
    falling = counts[order].astype(np.float64)
    best, least = None, np.inf
    for head in SIZES:
        for rare_bits in range(MOST_RARE + 1):
            code = _numerals(falling, order, head, rare_bits)
            if code is None:
                continue
            bits = code.bits(counts) + 8 * (code.nbytes + STATE * code.states)
            if bits < least:
                best, least = code, bits
    return best


def _numerals(
    falling: NDArray[np.float64], order: Integers, head: int, rare_bits: int
) -> Numerals | None:
    """With 2^rare_bits rare symbols, if that can be: two others are left, none too frequent."""
    own = len(falling) - (1 << rare_bits if rare_bits else 0)
    slots = (1 << head) - bool(rare_bits)
    if not 2 <= own <= slots // 2:
        return None
    frequencies = _apportioned(falling[:own], slots, 1 << head - 1)
    if rare_bits:
        frequencies = np.append(frequencies, 1)
    return Numerals(frequencies, rare_bits, order)


def _apportioned(counts: NDArray[np.float64], slots: int, most: int) -> Integers:
    """Slots in proportion to counts, 1 to `most` each, so that Σ count · log₂ slots is largest."""
    share = counts * slots / max(counts.sum(), 1.0)
    found = np.clip(np.rint(share), 1, most)
    while (missing := int(slots - found.sum())) != 0:
        if missing > 0:
            gain = np.where(found < most, (counts + 1e-9) * np.log2((found + 1) / found), -1)
            found[np.argsort(-gain, kind="stable")[:missing]] += 1
            found = np.minimum(found, most)
        else:
            lower = np.maximum(found - 1, 1)
            loss = np.where(found > 1, counts * np.log2(found / lower), np.inf)
            found[np.argsort(loss, kind="stable")[:-missing]] -= 1
            found = np.maximum(found, 1)
    return np.asarray(found, np.int64)


def _bit_lengths(numbers: NDArray[np.integer]) -> Integers:
    """[*], of positive integers below 2^53."""
    return np.asarray(np.frexp(numbers.astype(np.float64))[1]).astype(np.int64)
