"""The layout of an archive, and reading one that may have been made to do harm.

::

    magic                       11 bytes, the last of them the version
    number of files             and for each: length of its name, its name, its bytes
    number of streams           and for each: its coder, its plain bytes, its coded bytes
    the streams                 one after the other
    digest                      SHA-256 of all above and of the SHA-256 of the files' content

Numbers are varints, seven bits a byte, the lowest first. The first file is the model, without a
name. Stream 0 is the map: pairs (stream, bytes) that say where the content of the files, one after
the other, comes from. Every size is declared before the first stream, so that all limits are
checked before anything is decoded, and decoding stops at what was declared.
"""

import hashlib
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from onnxrd.archive.coders import CODERS, Decoder
from onnxrd.errors import ModelError
from onnxrd.graph.model import ARCHIVE

MAGIC = ARCHIVE + b"\r\n\x1a\x01"
CHUNK = 1 << 16
_DIGEST = hashlib.sha256().digest_size
_MOST_FILES, _MOST_STREAMS, _LONGEST_NAME, _LONGEST_MAP = 10_000, 256, 4096, 1 << 24
_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A file in an archive: its name (a path relative to the model, "" for the model), its size."""

    name: str
    nbytes: int


@dataclass(frozen=True)
class Stream:
    """A run of coded bytes: the number of its coder, and its sizes before and after coding."""

    coder: int
    plain: int
    coded: int


def varint(number: int) -> bytes:
    """A non-negative integer at seven bits a byte."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def header(entries: Sequence[Entry], streams: Sequence[Stream]) -> bytes:
    """All that comes before the first stream."""
    parts = [MAGIC, varint(len(entries))]
    for entry in entries:
        name = entry.name.encode()
        parts += [varint(len(name)), name, varint(entry.nbytes)]
    parts.append(varint(len(streams)))
    parts += [varint(n) for s in streams for n in (s.coder, s.plain, s.coded)]
    return b"".join(parts)


class Archive:
    """An archive that is open for reading; its header has been checked.

    Args:
        file: open at its beginning.
        path: for messages.
        max_size: refuse it if its files are larger together, bytes.

    Attributes:
        entries: the files in it.

    Raises:
        ModelError: no archive, of another version, damaged, or too large.
    """

    def __init__(self, file: IO[bytes], path: Path, max_size: int) -> None:
        self._file, self._path = file, path
        size = os.fstat(file.fileno()).st_size
        start = file.read(len(MAGIC))
        if start[:-1] != MAGIC[:-1]:
            raise ModelError(f"{path} is no archive that `onnxrd pack` wrote.")
        if start != MAGIC:
            raise ModelError(
                f"{path} is an archive of a version that this onnxrd does not know. Update onnxrd."
            )
        fields = _Numbers(file.read(_LONGEST_HEADER), self._broken)
        self.entries = [
            Entry(fields.text(), fields.number()) for _ in range(fields.number(1, _MOST_FILES))
        ]
        self._streams = [
            Stream(fields.number(0, len(CODERS) - 1), fields.number(), fields.number())
            for _ in range(fields.number(1, _MOST_STREAMS))
        ]
        self._data = len(MAGIC) + fields.at
        self._check(size, max_size)

    @property
    def nbytes(self) -> int:
        """Of all files together."""
        return sum(entry.nbytes for entry in self.entries)

    def content(self) -> Iterator[tuple[Entry, bytes]]:
        """The files in pieces, in order; the digest has been checked when the last one is through.

        Raises:
            ModelError: the archive is damaged.
        """
        digest, content = self._digest_of_coded(), hashlib.sha256()
        readers = self._readers()
        runs = self._runs(readers[0].read(self._streams[0].plain))
        stream, run = 0, 0
        for entry in self.entries:
            left = entry.nbytes
            while left:
                while not run:
                    stream, run = next(runs, (0, 0))
                    if stream == 0:
                        raise self._broken()
                data = readers[stream].read(min(left, run, CHUNK))
                content.update(data)
                left -= len(data)
                run -= len(data)
                yield entry, data
        if run or next(runs, None) or not all(reader.finished() for reader in readers):
            raise self._broken()
        digest.update(content.digest())
        self._file.seek(-_DIGEST, os.SEEK_END)
        if self._file.read() != digest.digest():
            raise self._broken()

    def _check(self, size: int, max_size: int) -> None:
        if self.entries[0].name or not all(is_safe(entry.name) for entry in self.entries[1:]):
            raise ModelError(f"{self._path} holds files with names that are not safe. Refused.")
        if len({entry.name.casefold() for entry in self.entries}) < len(self.entries):
            raise self._broken()
        if self.nbytes > max_size:
            raise ModelError(
                f"{self._path} declares {self.nbytes:,} bytes, the limit is {max_size:,}. If you "
                "trust where it comes from, allow more by --max-size."
            )
        if self._streams[0].plain > _LONGEST_MAP:
            raise self._broken()
        if sum(stream.plain for stream in self._streams[1:]) != self.nbytes:
            raise self._broken()
        if self._data + sum(stream.coded for stream in self._streams) + _DIGEST != size:
            raise self._broken()

    def _digest_of_coded(self) -> "hashlib._Hash":
        digest = hashlib.sha256()
        left = self._data + sum(stream.coded for stream in self._streams)
        self._file.seek(0)
        while left:
            data = self._file.read(min(CHUNK, left))
            if not data:
                raise self._broken()
            digest.update(data)
            left -= len(data)
        return digest

    def _readers(self) -> list["_Reader"]:
        readers, at = [], self._data
        for stream in self._streams:
            readers.append(_Reader(self._file, at, stream, self._broken))
            at += stream.coded
        return readers

    def _runs(self, data: bytes) -> Iterator[tuple[int, int]]:
        fields = _Numbers(data, self._broken)
        while fields.at < len(data):
            yield fields.number(1, len(self._streams) - 1), fields.number(1)

    def _broken(self) -> ModelError:
        return ModelError(f"{self._path} is damaged or cut short. Get it again.")


def is_safe(name: str) -> bool:
    """Whether a name stays in the folder of the model, on every system."""
    parts = name.split("/")
    return (
        not any(c in '\\:*?"<>|' or ord(c) < 32 for c in name)
        and not any(part in ("", ".", "..") or part.endswith((".", " ")) for part in parts)
        and len(name.encode()) <= _LONGEST_NAME
    )


class _Numbers:
    """Reads varints and names off bytes that may be anything."""

    def __init__(self, data: bytes, broken: Callable[[], ModelError]) -> None:
        self._data, self._broken, self.at = data, broken, 0

    def number(self, least: int = 0, most: int = 1 << 62) -> int:
        value = 0
        for place in range(9):
            if self.at >= len(self._data):
                break
            byte = self._data[self.at]
            self.at += 1
            value |= (byte & 127) << 7 * place
            if byte < 128:
                if not least <= value <= most:
                    break
                return value
        raise self._broken()

    def text(self) -> str:
        length = self.number(0, _LONGEST_NAME)
        raw = self._data[self.at : self.at + length]
        self.at += length
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self._broken() from None


class _Reader:
    """Decodes one stream of an archive, a piece at a time."""

    def __init__(
        self, file: IO[bytes], at: int, stream: Stream, broken: Callable[[], ModelError]
    ) -> None:
        self._file, self._at, self._end = file, at, at + stream.coded
        self._left, self._broken = stream.plain, broken
        self._decoder: Decoder = CODERS[stream.coder].decoder()

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        if count > self._left:
            raise self._broken()
        self._left -= count
        parts = []
        while count:
            data = self._decode(count)
            if not data and self._at == self._end and self._decoder.hungry:
                raise self._broken()
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def finished(self) -> bool:
        """Whether all of it was read, and coded bytes and declared size end together."""
        if self._left or (self._at < self._end and self._decode(1)):
            return False
        return self._at == self._end and self._decoder.complete

    def _decode(self, most: int) -> bytes:
        data = b""
        if self._decoder.hungry:
            self._file.seek(self._at)
            data = self._file.read(min(CHUNK, self._end - self._at))
            self._at += len(data)
        try:
            return self._decoder.decode(data, most)
        except (zlib.error, lzma.LZMAError, EOFError):
            raise self._broken() from None
