"""Which coder suits which tensor, found by trial."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from onnxrd.archive import coders
from onnxrd.archive.container import CHUNK
from onnxrd.archive.pieces import Piece
from onnxrd.errors import VerificationError

SMALL = 4096
"""Tensors of fewer bytes do not choose alone, but all of the same width together."""

START_UP = 256
"""Bytes that a coder spends on learning what it codes, saved where tensors share a stream."""

_SAMPLE, _SLICES = 1 << 20, 16


def choose(order: Sequence[tuple[IO[bytes], Piece]]) -> list[int]:
    """The coder of each piece: one for all tensors of a width, unless another is clearly better."""
    alone: dict[int, dict[int, int]] = {}
    small: dict[int, bytearray] = {}
    totals: dict[int, Counter[int]] = {}
    for n, (file, piece) in enumerate(order):
        if piece.nbytes >= SMALL:
            alone[n] = _trial(piece.width, _sample(file, piece))
            totals.setdefault(piece.width, Counter()).update(alone[n])
        else:
            small.setdefault(piece.width, bytearray()).extend(b"".join(read(file, piece)))
    together = {width: _trial(width, bytes(data)) for width, data in small.items()}
    for width, sizes in together.items():
        totals.setdefault(width, Counter()).update(sizes)
    common = {width: min(sizes, key=sizes.__getitem__) for width, sizes in totals.items()}
    return [
        _better(alone.get(n) or together[piece.width], common[piece.width])
        for n, (_, piece) in enumerate(order)
    ]


def _trial(width: int, data: bytes) -> dict[int, int]:
    """Coder → bytes that data takes under it."""
    candidates = coders.CANDIDATES[width]
    if len(candidates) == 1:
        return {candidates[0]: 0}
    return {coder: coders.coded_size(coder, data) for coder in candidates}


def _better(sizes: Mapping[int, int], common: int) -> int:
    best = min(sizes, key=sizes.__getitem__)
    return best if sizes[best] + START_UP < sizes[common] else common


def _sample(file: IO[bytes], piece: Piece) -> bytes:
    """All of a piece, or slices from all over a large one."""
    if piece.nbytes <= _SAMPLE:
        return b"".join(read(file, piece))
    length = _SAMPLE // _SLICES
    starts = [(piece.nbytes - length) * i // (_SLICES - 1) // 8 * 8 for i in range(_SLICES)]
    slices = (Piece(piece.start + start, length, piece.width) for start in starts)
    return b"".join(data for part in slices for data in read(file, part))


def read(file: IO[bytes], piece: Piece) -> Iterator[bytes]:
    """The bytes of a piece, some at a time."""
    file.seek(piece.start)
    left = piece.nbytes
    while left:
        data = file.read(min(CHUNK, left))
        if not data:
            raise VerificationError(f"{file.name} became shorter while it was read.")
        yield data
        left -= len(data)
