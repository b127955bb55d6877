"""Restore the files of an archive."""

import posixpath
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from onnxrd.archive.container import Archive
from onnxrd.errors import ModelError, SettingError
from onnxrd.graph.model import ARCHIVE, PathLike, atomic_output


@dataclass(frozen=True)
class Packed:
    """What packing or unpacking did.

    Attributes:
        path: of the archive, or of the restored model.
        files: that the model consists of, the model first.
        nbytes: (of the files, of the archive).
    """

    path: Path
    files: tuple[Path, ...]
    nbytes: tuple[int, int]

    @property
    def ratio(self) -> float:
        """How many times smaller the archive is."""
        return self.nbytes[0] / self.nbytes[1]


def unpack(archive: PathLike, output: PathLike, *, max_size: int | None = None) -> Packed:
    """Restore a model, and its external data beside it, byte for byte.

    Args:
        archive: path of what `pack` wrote.
        output: path of the .onnx file to write; external data keep the names that the model has
            for them, and replace nothing.
        max_size: refuse archives of more, bytes; None for 1 GiB or 64 times the archive's size,
            whichever is more.

    Raises:
        ModelError: no archive, damaged, too large, or the output cannot be written.
    """
    path = Path(output)
    with (
        open_archive(archive, max_size) as opened,
        atomic_output(path, never=(Path(archive),)) as temporary,
    ):
        files = _restored(opened, path)
        for name in sorted({posixpath.dirname(entry.name) for entry in opened.entries}):
            (temporary.parent / name).mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            written = {
                entry: stack.enter_context(
                    (temporary.parent / (entry.name or path.name)).open("wb")
                )
                for entry in opened.entries
            }
            for entry, data in opened.content():
                written[entry].write(data)
        return Packed(path, files, (opened.nbytes, Path(archive).stat().st_size))


def is_archive(path: PathLike) -> bool:
    """Whether a file begins as an archive does, of whatever version."""
    with Path(path).open("rb") as file:
        return file.read(len(ARCHIVE)) == ARCHIVE


@contextmanager
def open_archive(path: PathLike, max_size: int | None) -> Iterator[Archive]:
    """An archive for reading, closed at the end; see `unpack` and `Archive`."""
    path = Path(path)
    if max_size is not None and max_size < 0:
        raise SettingError(f"a limit of {max_size} bytes makes no sense: take 0 or more.")
    if not path.is_file():
        what = "this is a folder" if path.is_dir() else "no such file"
        raise ModelError(f"{path}: {what}. Give the path of an archive that `onnxrd pack` wrote.")
    limit = max(1 << 30, 64 * path.stat().st_size) if max_size is None else max_size
    with path.open("rb") as file:
        yield Archive(file, path, limit)


def _restored(archive: Archive, path: Path) -> tuple[Path, ...]:
    """Where the files will be; none but the model itself may be there already."""
    files = [path.parent / entry.name for entry in archive.entries[1:]]
    for file in files:
        if file.exists() or file.name == path.name:
            raise ModelError(
                f"the archive holds external data {file.name}, and {file} is in its way. "
                "Unpack into another folder."
            )
    return (path, *files)
