"""Several weights in one stream of Huffman codes, with the exact bytes of each part."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.encodings import vector_codes
from onnxrd.encodings.entropy import automaton, lanes
from onnxrd.encodings.entropy.code import Code, Coded, huffman_code
from onnxrd.encodings.entropy.estimate import LONGEST_RUN
from onnxrd.encodings.entropy.grid import spacing, zero_code
from onnxrd.encodings.entropy.numerals import Numerals, numeral_code
from onnxrd.encodings.entropy.symbols import MOST, Symbols, symbols
from onnxrd.encodings.fragment import Array, Builder, Fragment
from onnxrd.encodings.slot import Slot
from onnxrd.encodings.turns import wait
from onnxrd.quantizers import (
    Codebook,
    Quantized,
    Sparse,
    Trellis,
    VectorCodebook,
    weight_dtype,
)
from onnxrd.quantizers.trellis import PERIOD

NAME = "entropy"

RUNS = (1, 2, 3, 4, 5, 6, 8, 12, LONGEST_RUN)
"""How many codes a symbol may stand for."""

Book = Codebook | VectorCodebook | Trellis
"""A weight that has codes."""


def accepts(quantized: Quantized, slot: Slot) -> bool:
    """Whether a weight can be in a stream: it has codes, and the opset is 11 or later."""
    if isinstance(quantized, Sparse) or slot.opset < 11 or 0 in quantized.shape:
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


@dataclass(frozen=True)
class Kind:
    """What the functions of a decoder depend on, see `automaton.tables`."""

    numerals: bool
    apart: int
    wide: bool

    @classmethod
    def of(cls, code: Code | Numerals) -> "Kind":
        """The quickest one."""
        apart = next(bits for bits in (8, 4, 2, 1) if bits <= code.shortest)
        return cls(isinstance(code, Numerals), apart, len(code.order) > 255)

    @classmethod
    def common(cls, kinds: Iterable["Kind"]) -> "Kind":
        """One for all, of a coder."""
        kinds = list(kinds)
        apart = min(kind.apart for kind in kinds)
        return cls(kinds[0].numerals, apart, any(kind.wide for kind in kinds))


def best_stream(
    books: Mapping[str, Book],
    slots: Mapping[str, Slot],
    *,
    numerals: bool,
    turn: int = 0,
) -> "Stream":
    """Weights of one model, coded together, a symbol for as many codes as is best.

    Args:
        books: name of the weight → its codes and levels; all accepted, at least one.
        slots: name of the weight → its place.
        numerals: by asymmetric numeral systems, where that can be; by Huffman otherwise.
        turn: when to decode it, see `onnxrd.encodings.turns`.
    """
    best: Stream | None = None
    for run in RUNS:
        stream = stream_of(books, slots, run, numerals=numerals, turn=turn)
        if stream is None or (best is not None and stream.nbytes >= best.nbytes):
            break
        best = stream
    assert best is not None
    return best


def stream_of(
    books: Mapping[str, Book],
    slots: Mapping[str, Slot],
    run: int,
    *,
    numerals: bool = False,
    turn: int = 0,
) -> "Stream | None":
    """The same, a symbol standing for `run` codes; None if that takes too many symbols."""
    found = symbols(_Codes(books), run)
    if found is None:
        return None
    code = (numeral_code(found.counts) if numerals else None) or huffman_code(found.counts)
    return Stream(books, [slots[name] for name in books], found, code, turn, Kind.of(code))


@dataclass(frozen=True, eq=False)
class Stream:
    """Codes of weights, their symbols (forgotten once priced), and the code of these."""

    books: Mapping[str, Book]
    slots: Sequence[Slot]
    symbols: Symbols
    code: Code | Numerals
    turn: int
    kind: Kind

    @property
    def nbytes(self) -> float:
        """About how many bytes it takes, without what every stream takes; `fragments` knows."""
        return self.code.bits(self.symbols.counts) / 8 + self.code.nbytes + self._table().nbytes

    def fragments(self, steps: int, kind: Kind | None = None) -> dict[str, Fragment]:
        """A fragment of each weight.

        Args:
            steps: bytes of a lane, a key of `automaton.STEPS`.
            kind: of the decoder, if not the quickest one.
        """
        builder, pieces = self._decoder(steps, kind or self.kind)
        portions, width = self._portions(), self._table().itemsize
        return {
            name: _fragment(book, slot, piece, builder, width, portion)
            for (name, book), slot, piece, portion in zip(
                self.books.items(), self.slots, pieces, portions
            )
        }

    def _decoder(self, steps: int, kind: Kind) -> tuple[Builder, list[str]]:
        """All that decodes the stream, as shared parts, and the names of each weight's codes."""
        slot = replace(self.slots[0], stem=f"{self.slots[0].stem}-", inner=True)
        stem, opset, wide = slot.stem, slot.opset, kind.wide
        count, (rows, spare) = len(self.symbols.ids), self._lanes(steps)
        made = ir.Value(
            name=f"{stem}y",
            type=ir.TensorType(ir.DataType.UINT16 if wide else ir.DataType.UINT8),
            shape=ir.Shape([count + spare]),
        )
        builder = Builder(slot)
        *inner, unpack = automaton.unpack(opset, steps, *astuple(kind))
        inputs = (
            builder.packed(stem, np.dtype(np.uint8), (rows, steps), self._pack(steps)),
            builder.varints(f"{stem}f", self.code.description.tolist())
            if isinstance(self.code, Numerals)
            else builder.tensor(f"{stem}f", self.code.description),
        )
        if self.turn:
            inputs = wait(builder, *inputs, turn=self.turn)
        builder.call(unpack, inputs, f"{stem}y", inner=inner)
        table = builder.tensor(f"{stem}t", self._table())
        sizes = [_stored(book) for book in self.books.values()]
        rest = (count + spare) * self.symbols.runs.shape[1] - sum(sizes)
        names = [slot.stem for slot in self.slots]
        whole = names[0] if len(names) == 1 and not rest else f"{stem}c"
        builder.call(automaton.expand(opset), (f"{stem}y", table), whole)
        if whole != names[0]:
            outputs = [*names, f"{stem}z"] if rest else names
            builder.split(whole, outputs, [*sizes, rest] if rest else sizes)
        packed, cut = rows * steps, whole != names[0]
        load_nbytes = self._load_nbytes(packed, count + spare, kind, cut=cut)
        builder.share(f"{stem}s", [made], load_nbytes, turn=self.turn)
        return builder, names

    def _load_nbytes(self, packed: int, made: int, kind: Kind, *, cut: bool) -> int:
        """Bytes of what decoding computes.

        Args:
            packed: bytes of the lanes.
            made: symbols that come of them.
            kind: of the decoder.
            cut: codes are cut into pieces.
        """
        run = int(self.symbols.runs.shape[1])
        wide, slots = (2 if kind.wide else 1), 8 // kind.apart
        tables = self.code.states * (256 * (16 + (12 + wide) * slots) + 16 * (8 + 6 * slots))
        walk = packed * (25 + slots * (wide + 2) + (self.turn > 0))
        codes = made * run * int(self._table().itemsize)
        return tables + walk + made * (wide + 4) + codes * (3 if cut else 2)

    def _table(self) -> Array:
        """[A + 1, d], the codes of the symbols in order of the leaves, behind a row of zeros."""
        runs = self.symbols.runs[self.code.order]
        small = runs.min() >= -128 and runs.max() < 128
        return np.pad(runs, ((1, 0), (0, 0))).astype(np.int8 if small else np.int16)

    def _pack(self, steps: int) -> Any:
        books, run, code = self.books, self.symbols.runs.shape[1], self.code

        def pack() -> Array:
            found = symbols(_Codes(books), run)
            assert found is not None
            return lanes.packed(code.coded(found.ids), steps)

        return pack

    def _portions(self) -> list[int]:
        """Bytes of the code words of each weight; those of a symbol that two share, by halves."""
        run, lengths, position = self.symbols.runs.shape[1], self._coded.lengths, 0
        reached, before = 0.0, 0.0
        portions = []
        for end in np.cumsum([*map(_stored, self.books.values())]):
            whole, part = divmod(int(end), run)
            reached += int(lengths[position:whole].sum(dtype=np.int64))
            position = whole
            here = reached + (part / run * float(lengths[whole]) if part else 0)
            portions.append(math.ceil((here - before) / 8))
            before = here
        return portions

    @cached_property
    def _coded(self) -> Coded:
        return self.code.coded(self.symbols.ids)

    def _lanes(self, steps: int) -> tuple[int, int]:
        """How many lanes of so many bytes there are, and spare words behind the last."""
        if steps not in self._found:
            starts = lanes.cuts(self._coded, 8 * steps)
            spare = lanes.spare_words(self._coded, int(starts[-2]), steps)
            self._found[steps] = len(starts) - 1, spare
        return self._found[steps]

    @cached_property
    def _found(self) -> dict[int, tuple[int, int]]:
        return {}


def _fragment(
    book: Book, slot: Slot, codes: str, stream: Builder, width: int, portion: int
) -> Fragment:
    """What makes a weight of its piece of the stream's codes."""
    builder = Builder(slot)
    builder.include_shared(stream)
    if isinstance(book, VectorCodebook):
        vector_codes.call(builder, codes, book)
        load_nbytes = vector_codes.load_nbytes(book) + width * len(book.codes)
        return builder.build(NAME, book, load_nbytes=load_nbytes, portion=portion)
    dtype, size = weight_dtype(book), math.prod(book.shape)
    item, wide = dtype.itemsize, np.promote_types(dtype, np.float32)
    made = item if wide == dtype else wide.itemsize + item
    step = book.step if isinstance(book, Trellis) else spacing(book.levels)
    if isinstance(book, Trellis):
        function = automaton.trellis(slot.opset, dtype.name, turned=book.turned)
        load_nbytes = size * (42 + 4 * book.turned + 12 * (item == 8) + made)
    elif step is not None:
        function = automaton.scale(slot.opset, dtype.name)
        load_nbytes = size * (width + wide.itemsize + made)
    else:
        function = automaton.level(slot.opset)
        load_nbytes = size * (width + 4 + item)
    scale = builder.tensor(
        f"{slot.stem}l", step.astype(wide) if step is not None else _rolled(book)
    )
    if isinstance(book, Trellis) and book.scales is not None:
        scale = _scaled(builder, scale, book.scales, wide)
    builder.call(function, (codes, scale, builder.shape(book.shape)), slot.output)
    return builder.build(NAME, book, load_nbytes=load_nbytes, portion=portion)


def _scaled(builder: Builder, step: str, scales: Array, wide: np.dtype[Any]) -> str:
    """A step times scales that differ along an axis."""
    stem = builder.slot.stem
    factors = builder.tensor(f"{stem}ee", scales)
    to = int(ir.DataType.from_numpy(wide))
    builder.node(onnx.helper.make_node("Cast", [factors], [f"{stem}eg"], to=to))
    builder.node(onnx.helper.make_node("Mul", [step, f"{stem}eg"], [f"{stem}eh"]))
    return f"{stem}eh"


def _rolled(book: Book) -> Array:
    """[L], the levels from the one nearest to zero on, those below it at the end."""
    assert isinstance(book, Codebook)
    return np.roll(book.levels, -zero_code(book.levels))
