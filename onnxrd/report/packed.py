"""What packing and unpacking did, for people and programs."""

from typing import Any

from rich.console import RenderableType
from rich.text import Text

from onnxrd.archive import Packed
from onnxrd.report.tables import nbytes


def packed_data(packed: Packed) -> dict[str, Any]:
    """What `onnxrd pack --json` and `onnxrd unpack --json` print."""
    model, archive = packed.nbytes
    return {
        "path": packed.path,
        "files": packed.files,
        "model_nbytes": model,
        "archive_nbytes": archive,
        "ratio": packed.ratio,
    }


def packed_line(packed: Packed) -> RenderableType:
    """What `onnxrd pack` shows."""
    before, after = packed.nbytes
    return Text(
        f"{_files(packed)}{nbytes(before)} → {nbytes(after)}: {packed.ratio:.2f} × smaller, "
        f"restored and compared: {packed.path}"
    )


def unpacked_line(packed: Packed) -> RenderableType:
    """What `onnxrd unpack` shows."""
    after, before = packed.nbytes
    return Text(
        f"{_files(packed)}{nbytes(before)} → {nbytes(after)}, checksum right: {packed.path}"
    )


def _files(packed: Packed) -> str:
    return f"{len(packed.files)} files, " if len(packed.files) > 1 else ""
