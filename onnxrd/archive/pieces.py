"""Where in a model's files the big tensors lie, told apart from the graph around them.

An .onnx file is a protobuf message: a row of fields, each a tag, and for messages and bytes a
length and a content. Only the way down to the tensors has to be known; what cannot be followed
counts as graph, so that any file can be cut into pieces that add up to it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

SMALLEST = 64
"""Tensors of fewer bytes stay in the graph around them."""

_DEEPEST = 64
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_DATA_TYPE, _RAW_DATA = 2, 9
_INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
"""Message → numbers of its fields that may hold tensors → what message they are."""


@dataclass(frozen=True, order=True)
class Piece:
    """A run of bytes in a file.

    Attributes:
        start: of its first byte.
        nbytes: how many.
        width: bytes of an element of the tensor (1, 2, 4, 8), 0 for graph.
    """

    start: int
    nbytes: int
    width: int


def pieces_of_model(data: memoryview) -> list[Piece]:
    """A model file, cut into graph and tensors without a gap."""
    try:
        tensors = list(_tensors(data, 0, len(data), "model", 0))
    except _MalformedError:
        tensors = []
    return _without_gaps(tensors, len(data))


def pieces_of_data(tensors: Iterable[ir.ExternalTensor], file: Path) -> list[Piece]:
    """A file of external data, cut into its tensors and what lies between them."""
    end = file.stat().st_size
    spans = {(t.offset or 0, t.length or t.nbytes): t.dtype.value for t in tensors}
    found = [_piece(start, length, dtype) for (start, length), dtype in spans.items()]
    return _without_gaps(found, end)


def _without_gaps(tensors: Iterable[Piece], end: int) -> list[Piece]:
    """The tensors in order, graph between them; one that overlaps another counts as graph."""
    pieces, position = [], 0
    for piece in sorted(tensors):
        if piece.start < position or piece.nbytes < SMALLEST:
            continue
        if piece.start > position:
            pieces.append(Piece(position, piece.start - position, 0))
        pieces.append(piece)
        position = piece.start + piece.nbytes
    if position < end:
        pieces.append(Piece(position, end - position, 0))
    return pieces


class _MalformedError(Exception):
    """Not a message as expected."""


def _tensors(data: memoryview, start: int, end: int, what: str, depth: int) -> Iterator[Piece]:
    """The raw data of the tensors in a message that lies in data[start:end]."""
    if depth > _DEEPEST:
        return
    if what == "tensor":
        yield from _raw_data(data, start, end)
        return
    for number, at, length in _fields(data, start, end):
        if inside := _INSIDE[what].get(number):
            yield from _tensors(data, at, at + length, inside, depth + 1)


def _raw_data(data: memoryview, start: int, end: int) -> Iterator[Piece]:
    raw, dtype = None, 0
    for number, at, length in _fields(data, start, end):
        if number == _RAW_DATA:
            raw = (at, length)
        elif number == _DATA_TYPE:
            dtype, _ = _varint(data, at, end)
    if raw is not None:
        yield _piece(*raw, dtype)


def _piece(start: int, nbytes: int, dtype: int) -> Piece:
    try:
        width = min(8, max(1, int(ir.DataType(dtype).itemsize)))
    except (ValueError, TypeError):  # a type that this version does not know, or strings
        width = 1
    return Piece(start, nbytes, width if nbytes % width == 0 else 1)


def _fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start of the content, its length) of each field of a message."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == _VARINT:
            length = _varint(data, at, end)[1] - at
        elif kind == _LENGTH:
            length, at = _varint(data, at, end)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise _MalformedError
        if at + length > end:
            raise _MalformedError
        yield tag >> 3, at, length
        at += length


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """A number, and where the next field begins."""
    number = 0
    for place in range(10):
        if at + place >= end:
            raise _MalformedError
        byte = data[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    raise _MalformedError
