"""What decodes streams, with the exact bytes of each part.

All streams are walked through together: their lanes lie one behind the other, and each lane begins
in the first state of its own stream's decoder. So the operators of the walk are there once, however
many streams there are.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import onnx.helper
import onnx_ir as ir

from onnxrd.encodings import vector_codes
from onnxrd.encodings.entropy import automaton
from onnxrd.encodings.entropy.automaton import Kind
from onnxrd.encodings.entropy.grid import spacing, zero_code
from onnxrd.encodings.entropy.numerals import Numerals
from onnxrd.encodings.entropy.stream import NAME, Book, Stream
from onnxrd.encodings.fragment import Array, Builder, Fragment
from onnxrd.encodings.slot import Slot
from onnxrd.encodings.turns import wait
from onnxrd.quantizers import Codebook, Trellis, VectorCodebook, weight_dtype

MANY = 6
"""Steps of grids that are smaller in one tensor, cut into pieces, than in a tensor each."""


def fragments(streams: Sequence[Stream], steps: int, turn: int = 0) -> dict[str, Fragment]:
    """A fragment of each weight of some streams of one model, all sharing what decodes them.

    Args:
        streams: at least one.
        steps: bytes of a lane, a key of `automaton.STEPS`.
        turn: when to decode them, see `onnxrd.encodings.turns`.
    """
    return _fragments([streams], steps, turn, kind_of(streams))


def apart(streams: Sequence[Stream], steps: int, turn: int = 0) -> dict[str, Fragment]:
    """The same, but each stream walked through alone, by decoders of the same kind."""
    kind = replace(kind_of(streams), several=False)
    return _fragments([[stream] for stream in streams], steps, turn, kind)


def _fragments(
    parts: Sequence[Sequence[Stream]], steps: int, turn: int, kind: Kind
) -> dict[str, Fragment]:
    """A fragment of each weight, the streams of each part walked through together."""
    spacings, known = _spacings([stream for part in parts for stream in part])
    found = {}
    for part in parts:
        builder = _decoder(part, steps, turn, kind)
        builder.include_shared(spacings)
        for stream in part:
            for (name, book), slot, portion in zip(
                stream.books.items(), stream.slots, stream.portions
            ):
                width, given = stream.table.itemsize, slot in known
                found[name] = _fragment(book, slot, builder, width, portion, given=given)
    return found


def _spacings(streams: Sequence[Stream]) -> tuple[Builder, Collection[Slot]]:
    """Steps of grids in one tensor, if there are many, and the weights whose they are."""
    steps = {
        slot: step
        for stream in streams
        for book, slot in zip(stream.books.values(), stream.slots)
        if book.shape
        and not isinstance(book, VectorCodebook)
        and (step := _spacing(book)) is not None
        and step.dtype == np.float32
    }
    first = streams[0].slots[0]
    builder = Builder(replace(first, stem=f"{first.stem}-", inner=True))
    if len(steps) < MANY:
        return builder, ()
    whole = builder.tensor(f"{builder.slot.stem}l", np.stack(list(steps.values())))
    lengths = [1] * len(steps)
    builder.split(whole, [f"{slot.stem}l" for slot in steps], lengths, f"{builder.slot.stem}ln")
    builder.share(f"{builder.slot.stem}ls", (), 4 * len(steps))
    return builder, steps


def _spacing(book: Codebook | Trellis) -> Array | None:
    return book.step if isinstance(book, Trellis) else spacing(book.levels)


def kind_of(streams: Sequence[Stream]) -> Kind:
    """The quickest kind of decoder that all these streams can have."""
    return Kind(
        min(stream.apart for stream in streams),
        any(len(stream.code.order) > 255 for stream in streams),
        len(streams) > 1,
    )


def _decoder(streams: Sequence[Stream], steps: int, turn: int, kind: Kind) -> Builder:
    """All that decodes the streams, as shared parts; codes are named by their weights' stems."""
    first = streams[0].slots[0]
    builder = Builder(replace(first, stem=f"{first.stem}-", inner=True))
    stem = builder.slot.stem
    counts = [stream.lanes(steps) for stream in streams]
    packs = [stream.pack(steps) for stream in streams]
    shape = sum(rows for rows, _ in counts), steps
    inputs = builder.packed(
        stem, np.dtype(np.uint8), shape, lambda: np.concatenate([pack() for pack in packs])
    )
    _walk(builder, streams, (inputs, [rows for rows, _ in counts]), steps, kind, turn)
    made = sum(symbols for _, symbols in counts)
    symbols = [f"{stem}y"] if len(streams) == 1 else [f"{stem}{k}y" for k in range(len(streams))]
    if len(streams) > 1:
        builder.split(f"{stem}y", symbols, [size for _, size in counts], f"{stem}u")
    for number, (stream, name, (_, size)) in enumerate(zip(streams, symbols, counts)):
        _codes(builder, stream, number, name, size)
    value = ir.Value(
        name=f"{stem}y",
        type=ir.TensorType(ir.DataType.UINT16 if kind.wide else ir.DataType.UINT8),
        shape=ir.Shape([made]),
    )
    load_nbytes = _load_nbytes(streams, math.prod(shape), [size for _, size in counts], kind)
    builder.share(f"{stem}s", [value], load_nbytes + (turn > 0) * math.prod(shape), turn=turn)
    return builder


def _walk(
    builder: Builder,
    streams: Sequence[Stream],
    packed: tuple[str, list[int]],
    steps: int,
    kind: Kind,
    turn: int,
) -> None:
    """From the lanes, of which each stream has so many, to the symbols of all streams."""
    stem, opset, (packed_lanes, rows) = builder.slot.stem, builder.slot.opset, packed
    inputs = [packed_lanes, *(_description(builder, stream, k) for k, stream in enumerate(streams))]
    if turn:
        inputs = wait(builder, inputs, turn=turn)
    numerals = isinstance(streams[0].code, Numerals)
    *inner, unpack = automaton.unpack(opset, steps, kind, numerals)
    if kind.several:
        parts, begin = [], builder.tensor(f"{stem}m", np.zeros(1, np.int32))
        for k, (stream, description, lanes) in enumerate(zip(streams, inputs[1:], rows)):
            tables = automaton.tables(opset, kind, isinstance(stream.code, Numerals))
            shape = builder.varints(f"{stem}{k}r", [lanes, 1])
            made = [f"{stem}{k}{letter}" for letter in "TEXm"]
            builder.call(tables, (description, shape, begin), made)
            parts.append(made[:3])
            begin = made[3]
        inputs = [inputs[0], *(f"{stem}{name}w" for name in "TEX")]
        for names, whole in zip(zip(*parts), inputs[1:]):
            builder.node(onnx.helper.make_node("Concat", names, [whole], axis=0))
    builder.call(unpack, inputs, (f"{stem}y",), inner=inner)


def _description(builder: Builder, stream: Stream, number: int) -> str:
    name, described = f"{builder.slot.stem}{number or ''}f", stream.code.description
    if isinstance(stream.code, Numerals):
        return builder.varints(name, described.tolist())
    return builder.tensor(name, described)


def _codes(builder: Builder, stream: Stream, number: int, symbols: str, count: int) -> None:
    """From the symbols of a stream, so many of them, to the codes of its weights."""
    stem = f"{builder.slot.stem}{number or ''}"
    table = builder.tensor(f"{stem}t", stream.table)
    names = [slot.stem for slot in stream.slots]
    rest = count * stream.run - sum(stream.sizes)
    whole = names[0] if len(names) == 1 and not rest else f"{stem}c"
    builder.call(automaton.expand(builder.slot.opset), (symbols, table), (whole,))
    if whole != names[0]:
        builder.split(
            whole,
            [*names, f"{stem}z"] if rest else names,
            [*stream.sizes, rest] if rest else stream.sizes,
            f"{stem}n",
        )


def _load_nbytes(streams: Sequence[Stream], packed: int, counts: Sequence[int], kind: Kind) -> int:
    """Bytes of what decoding computes.

    Args:
        streams: what is decoded.
        packed: bytes of the lanes.
        counts: symbols that come of each.
        kind: of the decoder.
    """
    wide, slots = (2 if kind.wide else 1), 8 // kind.apart
    each = 256 * (16 + (12 + wide) * slots) + 16 * (8 + 6 * slots)
    if kind.several:
        each += 256 * (8 + wide * slots)
    tables = sum(stream.code.states * (each + stream.code.aside) for stream in streams)
    walk = packed * (25 + slots * (wide + 2))
    codes = sum(n * s.run * s.table.itemsize for n, s in zip(counts, streams))
    return tables + walk + sum(counts) * (wide * (1 + kind.several) + 4) + 3 * codes


def _fragment(
    book: Book, slot: Slot, shared: Builder, width: int, portion: int, *, given: bool
) -> Fragment:
    """What makes a weight of its codes, which are named as its slot's stem.

    Args:
        book: the weight.
        slot: its place.
        shared: parts.
        width: bytes of a code.
        portion: bytes of its code words.
        given: the step of its grid is among the shared parts.
    """
    builder, codes = Builder(slot), slot.stem
    builder.include_shared(shared)
    if isinstance(book, VectorCodebook):
        vector_codes.call(builder, codes, book)
        load_nbytes = vector_codes.load_nbytes(book) + width * len(book.codes)
        return builder.build(NAME, book, load_nbytes=load_nbytes, portion=portion)
    dtype, size = weight_dtype(book), math.prod(book.shape)
    item, wide = dtype.itemsize, np.promote_types(dtype, np.float32)
    made = item if wide == dtype else wide.itemsize + item
    step = _spacing(book)
    if isinstance(book, Trellis):
        function = automaton.trellis(slot.opset, dtype.name, turned=book.turned)
        load_nbytes = size * (42 + 4 * book.turned + 12 * (item == 8) + made)
    elif step is not None:
        function = automaton.scale(slot.opset, dtype.name)
        load_nbytes = size * (width + wide.itemsize + made)
    else:
        function = automaton.level(slot.opset)
        load_nbytes = size * (width + 4 + item)
    scale = f"{slot.stem}l"
    if not given:
        builder.tensor(scale, step.astype(wide) if step is not None else _rolled(book))
    builder.call(function, (codes, scale, builder.shape(book.shape)), slot.output)
    return builder.build(NAME, book, load_nbytes=load_nbytes, portion=portion)


def _rolled(book: Book) -> Array:
    """[L], the levels from the one nearest to zero on, those below it at the end."""
    assert isinstance(book, Codebook)
    return np.roll(book.levels, -zero_code(book.levels))
