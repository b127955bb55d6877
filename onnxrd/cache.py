"""What was computed before, kept in a folder of the user's for the next time.

An entry is an npz of arrays, named after the SHA-256 of all that it depends on: the content of the
model and of the data, the settings, and the version of what computes. It appears whole or not at
all. One that cannot be read, checksums included, is computed anew.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.calibration import Calibration
from onnxrd.errors import ModelError, SettingError
from onnxrd.graph.model import Model, PathLike, atomic_output

Arrays = Mapping[str, NDArray[Any]]

SUFFIX = ".cache"
"""Not .npz: a folder of these is data to calibrate with."""

_KEY = "depends on"


def remembered(
    folder: PathLike | None,
    kind: str,
    model: Model,
    data: Sequence[Calibration],
    settings: Any,
    compute: Callable[[], Arrays],
) -> Arrays:
    """What `compute` gives now, or gave before for the same model, data and settings.

    Args:
        folder: of the cache, made if need be; None for no cache.
        kind: what it is, a word for the name of the file.
        model: what it is computed for.
        data: samples that it is computed on.
        settings: all else that it depends on; its `repr` tells them apart.
        compute: arrays by name.

    Raises:
        SettingError: the folder cannot be made.
    """
    if folder is None:
        return compute()
    path, key = _entry(folder, kind, model, data, settings)
    arrays = _read(path, key)
    if arrays is None:
        arrays = compute()
        _write(path, key, arrays)
    return arrays


class Notes:
    """Rows of numbers that run after run adds to, for the same model, data and settings.

    Args:
        as for `remembered`.

    Attributes:
        rows: of earlier runs, if there is a folder, and of this one; all of the same length.

    Raises:
        SettingError: the folder cannot be made.
    """

    def __init__(
        self,
        folder: PathLike | None,
        kind: str,
        model: Model,
        data: Sequence[Calibration],
        settings: Any,
    ) -> None:
        self._entry = _entry(folder, kind, model, data, settings) if folder else None
        kept = (self._entry and _read(*self._entry)) or {"rows": np.zeros((0, 0))}
        self.rows: list[tuple[float, ...]] = [tuple(row) for row in kept["rows"].tolist()]

    def add(self, *row: float) -> None:
        """A row more, unless it is there."""
        if row not in self.rows:
            self.rows.append(row)
            if self._entry:
                _write(*self._entry, {"rows": np.array(self.rows, np.float64)})


def _entry(
    folder: PathLike, kind: str, model: Model, data: Sequence[Calibration], settings: Any
) -> tuple[Path, str]:
    """The file of an entry, in a folder that is there, and what it is to say that it belongs to."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(
            f"cannot make the folder {folder} for the cache ({error.strerror}). Give another one."
        ) from error
    depends = [kind, *versions(), model.digest, *(each.digest for each in data), repr(settings)]
    key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()
    return folder / f"{kind}-{key[:40]}{SUFFIX}", key


@cache
def versions() -> tuple[str, ...]:
    """What computes: releases of the packages, and a digest of the code of this one."""
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(file.read_bytes())
    packages = ("onnxrd", "numpy", "onnxruntime")
    return (*(f"{name} {version(name)}" for name in packages), code.hexdigest())


def _read(path: Path, key: str) -> Arrays | None:
    """The arrays of an entry; None if there is none, or a damaged one, which a warning tells."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if str(arrays.pop(_KEY)) == key:
            return arrays
        reason = "it belongs to something else"
    except Exception as error:  # zipfile, zlib, numpy and struct each have exceptions of their own
        reason = str(error) or type(error).__name__
    logging.getLogger("onnxrd").warning("%s is damaged, so computed anew (%s)", path, reason)
    return None


def _write(path: Path, key: str, arrays: Arrays) -> None:
    """Keep an entry; if that is not possible, a warning tells so, and the work goes on."""
    try:
        with atomic_output(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **{_KEY: np.array(key)}, **arrays)
    except ModelError as error:
        _not_kept(str(error))


@cache
def _not_kept(why: str) -> None:
    """Say so once, however many entries it goes for."""
    logging.getLogger("onnxrd").warning("not kept in the cache: %s", why)
