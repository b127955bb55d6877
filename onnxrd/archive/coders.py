"""The ways in which a stream of bytes is coded, all of them from the standard library.

Which contexts help depends on what the bytes are. Measured on ResNet-20, bytes after / before:

===========================  ======================================================
graph without big tensors    2.5 / 20.8 kB by LZMA; 3.0 by zstd, 2.7 by brotli
six levels, byte LUT         71.7 / 89.9 kB by LZMA; 72.6 by zstd, 71.5 by brotli
fp32 weights                 0.84 by LZMA with the position in the word as context; 0.92 by Huffman
Huffman bit planes, 2.9 bit  2.861 bits of 2.972 by LZMA; 2.83 by mixing neighbours as contexts
===========================  ======================================================

So no further library earns its place, and neither does a range coder with contexts of our own.
"""

import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Bytes = bytes | memoryview


class Encoder(Protocol):
    """Takes bytes piece by piece."""

    def compress(self, data: Bytes, /) -> bytes:
        """The coded bytes that are ready."""

    def flush(self) -> bytes:
        """The rest of them."""


class Decoder(Protocol):
    """Gives bytes piece by piece, never more than asked for."""

    def decode(self, data: bytes, most: int) -> bytes:
        """Up to `most` plain bytes; `data` is read only if `hungry`."""

    @property
    def hungry(self) -> bool:
        """Whether it needs more coded bytes to go on."""

    @property
    def complete(self) -> bool:
        """Whether the coded bytes came to their proper end, with none left over."""


@dataclass(frozen=True)
class Coder:
    """One way of coding.

    Attributes:
        name: for people.
        encoder: makes an encoder.
        decoder: makes a decoder.
    """

    name: str
    encoder: Callable[[], Encoder]
    decoder: Callable[[], Decoder]


class _Stored:
    """As it is."""

    def __init__(self) -> None:
        self._data = b""

    def compress(self, data: Bytes) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""

    def decode(self, data: bytes, most: int) -> bytes:
        held = self._data + data
        self._data = held[most:]
        return held[:most]

    @property
    def hungry(self) -> bool:
        return not self._data

    @property
    def complete(self) -> bool:
        return not self._data


class _Inflater:
    """Deflate without header or checksum."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)

    def decode(self, data: bytes, most: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, most)

    @property
    def hungry(self) -> bool:
        return not self._zlib.unconsumed_tail and not self._zlib.eof

    @property
    def complete(self) -> bool:
        return self._zlib.eof and not self._zlib.unused_data


class _Unlzma:
    """LZMA without header or checksum."""

    def __init__(self, filters: list[dict[str, int]]) -> None:
        self._lzma = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)

    def decode(self, data: bytes, most: int) -> bytes:
        return b"" if self._lzma.eof else self._lzma.decompress(data, most)

    @property
    def hungry(self) -> bool:
        return self._lzma.needs_input and not self._lzma.eof

    @property
    def complete(self) -> bool:
        return self._lzma.eof and not self._lzma.unused_data


def _deflate() -> Encoder:
    return zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)


def _lzma(name: str, lc: int, position: int, **effort: int) -> Coder:
    """LZMA whose literals see `lc` bits of the byte before and 2^position places in a word."""
    filters = [{"id": lzma.FILTER_LZMA1, "lc": lc, "lp": position, "pb": position, **effort}]
    return Coder(
        name,
        lambda: lzma.LZMACompressor(lzma.FORMAT_RAW, filters=filters),
        lambda: _Unlzma(filters),
    )


_THOROUGH = {"preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 23}
_LITERAL = {
    "preset": 1,
    "dict_size": 1 << 16,
    "mode": lzma.MODE_NORMAL,
    "mf": lzma.MF_HC4,
    "depth": 1,
    "nice_len": 273,
}
"""Weights repeat nothing: hardly a search for matches is six times faster, and no bigger."""

STORED, HUFFMAN, TEXT, BYTES, BYTES_PAIRED, HALVES, WORDS, DOUBLES = range(8)
"""Numbers of the coders in a file: never to be changed."""

CODERS = (
    Coder("stored", _Stored, _Stored),
    Coder("Huffman", _deflate, _Inflater),
    _lzma("LZMA, graph", 1, 0, **_THOROUGH),
    _lzma("LZMA, bytes", 0, 0, **_LITERAL),
    _lzma("LZMA, bytes after bytes", 1, 0, **_LITERAL),
    _lzma("LZMA, 16 bit", 0, 1, **_LITERAL),
    _lzma("LZMA, 32 bit", 0, 2, **_LITERAL),
    _lzma("LZMA, 64 bit", 0, 3, **_LITERAL),
)

CANDIDATES = {
    0: (TEXT,),
    1: (BYTES, BYTES_PAIRED, HUFFMAN, STORED),
    2: (HALVES, HUFFMAN, STORED),
    4: (WORDS, HUFFMAN, STORED),
    8: (DOUBLES, HUFFMAN, STORED),
}
"""Bytes of an element (0: graph) → the coders to try, the first one where they are equal."""


def coded_size(coder: int, data: Bytes) -> int:
    """Bytes that data takes when it is coded alone."""
    encoder = CODERS[coder].encoder()
    return len(encoder.compress(data)) + len(encoder.flush())
