"""Write a model with all its files into an archive."""

import hashlib
import mmap
import os
import posixpath
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from onnxrd.archive import coders
from onnxrd.archive.choice import choose, read
from onnxrd.archive.container import CHUNK, Entry, Stream, header, is_safe, varint
from onnxrd.archive.pieces import Piece, pieces_of_data, pieces_of_model
from onnxrd.archive.unpacking import Packed, open_archive
from onnxrd.errors import ModelError, VerificationError
from onnxrd.graph.model import Model, PathLike, atomic_output, load
from onnxrd.progress import Track, silent


def pack(model: PathLike, output: PathLike, *, track: Track = silent) -> Packed:
    """Write an archive of a model and its external data, and check that it restores them.

    Two runs give the same bytes; nothing of names, times or machines is kept but the names of
    files of external data.

    Args:
        model: path of an .onnx file.
        output: path to write.
        track: shows progress.

    Raises:
        ModelError: the model cannot be read, or the output not be written.
        VerificationError: the archive does not restore the files, perhaps because they changed.
    """
    original, path = load(Path(model)), Path(output)
    names = _names(original)
    with atomic_output(path, never=original.files) as temporary:
        _write(names, _cut(original), temporary, track)
        _verify(names, temporary)
        return Packed(path, tuple(names), (original.nbytes, temporary.stat().st_size))


def _names(model: Model) -> dict[Path, str]:
    """The files of a model, and their names in the archive."""
    names = {model.path: ""}
    for path, tensors in sorted(model.external.items()):
        names[path] = posixpath.normpath(os.fspath(tensors[0].location))
        if not is_safe(names[path]):
            raise ModelError(
                f"{path}: such a name cannot be restored on every system. Rename the external "
                "data: load the model with the onnx package, and save it under another location."
            )
    return names


def _cut(model: Model) -> dict[Path, list[Piece]]:
    """The pieces of each file."""
    with (
        model.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        pieces = {model.path: pieces_of_model(view)}
    return pieces | {f: pieces_of_data(tensors, f) for f, tensors in sorted(model.external.items())}


def _write(
    names: Mapping[Path, str], pieces: Mapping[Path, list[Piece]], output: Path, track: Track
) -> None:
    with ExitStack() as stack:
        files = {path: stack.enter_context(path.open("rb")) for path in names}
        order = [(files[path], piece) for path in names for piece in pieces[path]]
        chosen = choose(order)

        def writer(coder: int) -> _Writer:
            return _Writer(coder, stack.enter_context(tempfile.TemporaryFile(dir=output.parent)))

        writers = {coder: writer(coder) for coder in sorted(set(chosen))}
        content, runs = hashlib.sha256(), b""
        numbers = {coder: number for number, coder in enumerate(writers, 1)}
        for (file, piece), coder in track(zip(order, chosen), "packing", len(order)):
            runs += varint(numbers[coder]) + varint(piece.nbytes)
            for data in read(file, piece):
                content.update(data)
                writers[coder].write(data)
        table = writer(coders.BYTES)
        table.write(runs)
        entries = [Entry(names[path], path.stat().st_size) for path in names]
        _join(entries, [table, *writers.values()], content.digest(), output)


def _join(
    entries: Sequence[Entry], writers: Sequence["_Writer"], content: bytes, output: Path
) -> None:
    """Put header, streams and digest together."""
    digest = hashlib.sha256()
    with output.open("wb") as archive:

        def add(data: bytes) -> None:
            digest.update(data)
            archive.write(data)

        add(header(entries, [writer.finish() for writer in writers]))
        for writer in writers:
            while data := writer.file.read(CHUNK):
                add(data)
        digest.update(content)
        archive.write(digest.digest())


class _Writer:
    """One stream, coded into a temporary file."""

    def __init__(self, coder: int, file: IO[bytes]) -> None:
        self._coder, self._plain, self.file = coder, 0, file
        self._encoder = coders.CODERS[coder].encoder()

    def write(self, data: bytes) -> None:
        self._plain += len(data)
        self.file.write(self._encoder.compress(data))

    def finish(self) -> Stream:
        """No more to come; the file is ready to be read."""
        self.file.write(self._encoder.flush())
        coded = self.file.tell()
        self.file.seek(0)
        return Stream(self._coder, self._plain, coded)


def _verify(names: Mapping[Path, str], archive: Path) -> None:
    """Restore the archive in memory, piece by piece, next to the files."""
    with ExitStack() as stack:
        opened = stack.enter_context(open_archive(archive, 1 << 62))
        files = {name: stack.enter_context(path.open("rb")) for path, name in names.items()}
        for entry, data in opened.content():
            if files[entry.name].read(len(data)) != data:
                raise VerificationError("the archive does not restore the model: did it change?")
