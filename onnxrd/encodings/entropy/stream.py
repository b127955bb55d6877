"""Several weights in one stream of codes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnxrd.encodings.entropy import lanes
from onnxrd.encodings.entropy.automaton import STEPS
from onnxrd.encodings.entropy.code import Code, Coded, huffman_code
from onnxrd.encodings.entropy.estimate import LONGEST_RUN
from onnxrd.encodings.entropy.grid import zero_code
from onnxrd.encodings.entropy.numerals import Numerals, numeral_code
from onnxrd.encodings.entropy.symbols import MOST, symbols
from onnxrd.encodings.fragment import Array
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import (
    Codebook,
    Quantized,
    Trellis,
    VectorCodebook,
)
from onnxrd.quantizers.trellis import PERIOD

NAME = "entropy"

OPSET = 11
"""Since when there are the operators that decode."""

RUNS = (1, 2, 3, 4, 5, 6, 8, 12, LONGEST_RUN)
"""How many codes a symbol may stand for."""

HARDLY_MORE = 1.05
"""Times the fewest bytes that streams may take to be decoded in less memory."""

Book = Codebook | VectorCodebook | Trellis
"""A weight that has codes."""


def accepts(quantized: Quantized, slot: Slot) -> bool:
    """Whether a weight can be in a stream: it has codes, and the opset is `OPSET` or later."""
    if not isinstance(quantized, Book) or slot.opset < OPSET or 0 in quantized.shape:
        return False
    if isinstance(quantized, Trellis):
        return bool(np.abs(quantized.codes).max() < 128)
    return len(quantized.levels) <= MOST and math.prod(quantized.shape) < 1 << 31


def signed_codes(book: Book) -> NDArray[np.int16]:
    """[n], codes counted from zero: alike in weights of any range.

    Those of a trellis are filled up with zeros to whole periods.
    """
    if isinstance(book, Trellis):
        codes = book.stream
        return np.pad(codes, (0, -len(codes) % PERIOD))
    if isinstance(book, VectorCodebook):
        return book.codes.astype(np.int16)
    return book.codes.ravel().astype(np.int16) - np.int16(zero_code(book.levels))


def code_counts(book: Book) -> tuple[NDArray[np.int64], int]:
    """[L], how often each code occurs, ascending; and which of them is zero."""
    if isinstance(book, Codebook):
        return book.counts, zero_code(book.levels)
    if isinstance(book, VectorCodebook):
        return book.counts, 0
    zero = -min(0, int(book.codes.min()))
    return np.bincount(book.codes.ravel() + zero), zero


def _stored(book: Book) -> int:
    """How many codes of a weight are in the stream."""
    size = math.prod(book.shape)
    if isinstance(book, VectorCodebook):
        return len(book.codes)
    return size + -size % PERIOD if isinstance(book, Trellis) else size


@dataclass(frozen=True, eq=False)
class _Codes:
    """The codes of weights, one weight in memory at a time."""

    books: Mapping[str, Book]

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        return map(signed_codes, self.books.values())


def best_stream(
    books: Mapping[str, Book], slots: Mapping[str, Slot], *, numerals: bool, lean: bool = False
) -> "Stream":
    """Weights of one model, coded together, a symbol for as many codes as is best.

    Args:
        books: name of the weight → its codes and levels; all accepted, at least one.
        slots: name of the weight → its place.
        numerals: by asymmetric numeral systems, where that can be; by Huffman otherwise.
        lean: with the fewest states of those that take hardly more bytes.
    """
    tried: list[Stream] = []
    for run in RUNS:
        stream = stream_of(books, slots, run, numerals=numerals)
        if stream is None:
            break
        tried.append(stream)
        if len(tried) > 1 and stream.nbytes >= tried[-2].nbytes:
            break
    best = min(tried, key=lambda stream: stream.nbytes)
    if not lean:
        return best
    few = [stream for stream in tried if stream.nbytes <= HARDLY_MORE * best.nbytes]
    return min(few, key=lambda stream: stream.code.states)


def stream_of(
    books: Mapping[str, Book], slots: Mapping[str, Slot], run: int, *, numerals: bool = False
) -> "Stream | None":
    """The same, a symbol standing for `run` codes; None if that takes too many symbols."""
    found = symbols(_Codes(books), run)
    if found is None:
        return None
    code = (numeral_code(found.counts) if numerals else None) or huffman_code(found.counts)
    return Stream(books, [slots[name] for name in books], found.runs, found.counts, code)


@dataclass(frozen=True, eq=False)
class Stream:
    """Codes of weights, what their symbols are, and the code of these.

    The symbols of the codes are made anew where they are needed: all streams of a large network
    would take gigabytes.

    Attributes:
        books: name of the weight → its codes and levels.
        slots: the weights' places.
        runs: [A, d], the codes that each symbol stands for.
        counts: [A], how often each symbol occurs.
        code: of the symbols.
    """

    books: Mapping[str, Book]
    slots: Sequence[Slot]
    runs: NDArray[np.int64]
    counts: NDArray[np.int64]
    code: Code | Numerals

    @property
    def nbytes(self) -> float:
        """About how many bytes it takes, without what every stream takes; `fragments` knows."""
        return self.code.bits(self.counts) / 8 + self.code.nbytes + self.table.nbytes

    @property
    def run(self) -> int:
        """d, how many codes a symbol stands for."""
        return int(self.runs.shape[1])

    @property
    def apart(self) -> int:
        """The largest of 1, 2, 4, 8 that no code word is shorter than."""
        return next(bits for bits in (8, 4, 2, 1) if bits <= self.code.shortest)

    @cached_property
    def table(self) -> Array:
        """[A + 1, d], the codes of the symbols in the code's order, behind a row of zeros."""
        runs = self.runs[self.code.order]
        small = runs.min() >= -128 and runs.max() < 128
        return np.pad(runs, ((1, 0), (0, 0))).astype(np.int8 if small else np.int16)

    @cached_property
    def sizes(self) -> list[int]:
        """Codes of each weight."""
        return [_stored(book) for book in self.books.values()]

    def lanes(self, steps: int) -> tuple[int, int]:
        """How many lanes of so many bytes there are, and symbols with spare ones at the end.

        Args:
            steps: a key of `automaton.STEPS`.
        """
        return self._layout[0][steps]

    @property
    def portions(self) -> list[int]:
        """Bytes of the code words of each weight; those of a symbol that two share, by halves."""
        return self._layout[1]

    def pack(self, steps: int) -> Callable[[], Array]:
        """What makes the lanes [lanes, steps], without the stream's symbols in memory till then."""
        return lambda: lanes.packed(self._coded(), steps)

    def _coded(self) -> Coded:
        found = symbols(_Codes(self.books), self.run)
        assert found is not None
        return self.code.coded(found.ids)

    @cached_property
    def _layout(self) -> tuple[dict[int, tuple[int, int]], list[int]]:
        """Lanes of each length, and portions."""
        coded, found = self._coded(), {}
        for steps in STEPS:
            starts = lanes.cuts(coded, 8 * steps)
            spare = lanes.spare_words(coded, int(starts[-2]), steps)
            found[steps] = len(starts) - 1, int(starts[-1]) + spare
        return found, self._portions(coded.lengths)

    def _portions(self, lengths: NDArray[np.uint8]) -> list[int]:
        run, position = self.run, 0
        reached, before = 0.0, 0.0
        portions = []
        for end in np.cumsum(self.sizes):
            whole, part = divmod(int(end), run)
            reached += int(lengths[position:whole].sum(dtype=np.int64))
            position = whole
            here = reached + (part / run * float(lengths[whole]) if part else 0)
            portions.append(math.ceil((here - before) / 8))
            before = here
        return portions
