"""Streams that are decoded in several turns, see `onnxrd.encodings.turns`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx.helper

from onnxrd.encodings.entropy.estimate import entropy
from onnxrd.encodings.entropy.grouping import MOST_STREAMS, entropy_coded
from onnxrd.encodings.entropy.stream import NAME, Book, code_counts
from onnxrd.encodings.fragment import Builder, Fragment
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Codebook, Trellis
from onnxrd.quantizers.trellis import DELAYS, lead_in

LARGE = 1.5
"""Times its share of a turn that a weight may be before it is cut into pieces."""


@dataclass(frozen=True, eq=False)
class _Piece:
    """A weight, or some of its rows."""

    name: str
    book: Book
    slot: Slot

    @property
    def size(self) -> int:
        return math.prod(self.book.shape)


def in_turns(
    books: Mapping[str, Book], slots: Mapping[str, Slot], turns: int, *, lean: bool = False
) -> dict[str, Fragment]:
    """The same as `entropy_coded`, but decoded in so many turns, about as much in each.

    Args:
        books: name of the weight → its codes and levels; all accepted.
        slots: name of the weight → its place; their model may have turns.
        turns: from 1 to `onnxrd.encodings.turns.MOST_TURNS`.
        lean: by the code that takes the least memory.
    """
    total = sum(math.prod(book.shape) for book in books.values())
    pieces = {n: _cut(n, book, slots[n], total / turns) for n, book in books.items()}
    coded: dict[str, Fragment] = {}
    for turn, part in enumerate(_shared_out(books, pieces, turns)):
        coded |= entropy_coded(
            {piece.name: piece.book for piece in part},
            {piece.name: piece.slot for piece in part},
            turn=turn,
            most=max(1, MOST_STREAMS // turns),
            lean=lean,
        )
    return {
        name: _joined(books[name], slots[name], [coded[piece.name] for piece in parts])
        for name, parts in pieces.items()
    }


def _cut(name: str, book: Book, slot: Slot, share: float) -> list[_Piece]:
    """Runs of rows of a weight that is large, if it can be cut."""
    size = math.prod(book.shape)
    rows = book.shape[0] if book.shape else 1
    count = min(rows, math.ceil(size / share))
    if size <= LARGE * share or count < 2 or not _divisible(book):
        return [_Piece(name, book, slot)]
    edges = [rows * number // count for number in range(count + 1)]
    return [
        _Piece(part.output, _rows(book, start, end), part)
        for start, end, part in zip(
            edges, edges[1:], (slot.part(f"-{number}") for number in range(count))
        )
    ]


def _divisible(book: Book) -> bool:
    """Whether rows of a weight can be decoded without the others; see `_rows`."""
    if isinstance(book, Trellis):
        return not book.turned and bool(book.codes[0].size >= DELAYS)
    return isinstance(book, Codebook)


def _rows(book: Book, start: int, end: int) -> Book:
    """Some rows of a weight; of a trellis one more before, that leads to the state they begin in.

    Args:
        book: the weight.
        start: the first row.
        end: behind the last row.
    """
    if isinstance(book, Codebook):
        return Codebook(book.codes[start:end], book.levels)
    assert isinstance(book, Trellis)
    first = max(start - 1, 0)
    codes = book.codes[first:end].copy()
    if start > 0:
        codes[0] = 0
        codes[0].reshape(-1)[-DELAYS:] = lead_in(book.codes[:start].ravel())
    return Trellis(codes, book.step)


def _shared_out(
    books: Mapping[str, Book], pieces: Mapping[str, Sequence[_Piece]], turns: int
) -> list[list[_Piece]]:
    """The pieces of each turn, those alike together; turns without any are left out."""
    rate = {n: float(entropy(code_counts(b)[0])) / math.prod(b.shape) for n, b in books.items()}
    alike = [piece for name in sorted(books, key=lambda n: rate[n]) for piece in pieces[name]]
    parts: list[list[_Piece]] = [[] for _ in range(turns)]
    reached, total = 0, sum(piece.size for piece in alike)
    for piece in alike:
        parts[(2 * reached + piece.size) * turns // (2 * total)].append(piece)
        reached += piece.size
    return [part for part in parts if part]


def _joined(book: Book, slot: Slot, pieces: Sequence[Fragment]) -> Fragment:
    """The weight of its pieces, each of which is decoded in a turn of its own."""
    if len(pieces) == 1:
        return pieces[0]
    builder = Builder(slot)
    outputs = [builder.share_fragment(piece) for piece in pieces]
    if isinstance(book, Trellis):
        outputs[1:] = [_without_first(builder, output) for output in outputs[1:]]
    builder.node(onnx.helper.make_node("Concat", outputs, [slot.output], axis=0))
    dense = sum(piece.dense_nbytes for piece in pieces)
    portion = sum(piece.portion for piece in pieces)
    return builder.build(NAME, book, load_nbytes=2 * dense, portion=portion)


def _without_first(builder: Builder, name: str) -> str:
    """All rows but the first."""
    stem = builder.slot.stem
    one = builder.tensor(f"{stem}i", np.array([1]))
    end = builder.tensor(f"{stem}j", np.array([np.iinfo(np.int64).max]))
    builder.node(onnx.helper.make_node("Slice", [name, one, end], [f"{name}k"]))
    return f"{name}k"
