"""Where data come from: files, folders, scripts, Python objects. Read as late as possible."""

import difflib
import os
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxrd.calibration.checks import Array
from onnxrd.calibration.files import read_npz, read_test_data
from onnxrd.errors import CalibrationError

KEPT_AT_MOST = 1 << 30
"""Bytes of calls that are kept from a source which can be read only once, such as a generator."""

_CALL_OVERHEAD = 1024  # bytes, so that endless tiny calls come to an end as well


@dataclass(frozen=True, eq=False)
class Table:
    """Arrays that share a first axis, the samples.

    Attributes:
        where:  what they come from, for messages.
        arrays: [N, *input] by name, possibly mapped from a file.
    """

    where: str
    arrays: dict[str, Array]


@dataclass(frozen=True, eq=False)
class Calls:
    """Arrays of one call each.

    Attributes:
        where:   what they come from, for messages.
        entries: starts a pass over all calls, always in the same order: pairs of what a call comes
            from and a function that reads its arrays. Calls that are not read cost little.
    """

    where: str
    entries: Callable[[], Iterator[tuple[str, Callable[[], dict[str, Array]]]]]


def open_source(source: Any, names: Sequence[str]) -> Table | Calls:
    """Find out what a source is, and open it.

    Args:
        source: see `onnxrd.calibration.load`.
        names: the model's inputs, in order: ONNX test data know them by position only.

    Raises:
        CalibrationError: missing, empty, not readable, or nothing that can be used.
    """
    if isinstance(source, (str, os.PathLike)):
        script, _, function = os.fspath(source).rpartition(":")
        if script.endswith(".py"):
            return _open_python(_call_script(Path(script), function), os.fspath(source))
        return _open_path(Path(source), names)
    return _open_python(source, "data")


def _open_path(path: Path, names: Sequence[str]) -> Table | Calls:
    if path.is_dir():
        return _open_folder(path, names)
    if not path.exists():
        raise CalibrationError(f"{path}: no such file or folder.")
    if path.suffix == ".py":
        raise CalibrationError(f"{path}: say which function to call, as {path}:function.")
    return Table(str(path), read_npz(path))


def _open_folder(folder: Path, names: Sequence[str]) -> Calls:
    sets = [f for f in folder.glob("test_data_set_*") if f.is_dir()]
    read: Callable[[Path], dict[str, Array]] = partial(read_test_data, names)
    if any(folder.glob("input_*.pb")):
        files = [folder]
    elif sets:
        files = sorted(sets, key=lambda path: (len(path.name), path.name))  # 10 comes after 9
    else:
        files, read = sorted(folder.glob("*.npz")), read_npz
    if not files:
        raise CalibrationError(
            f"{folder}: an empty folder? It should hold .npz files, test_data_set_* folders, or "
            "input_*.pb files."
        )
    return Calls(str(folder), lambda: ((str(file), partial(read, file)) for file in files))


def _open_python(source: Any, where: str) -> Table | Calls:
    if isinstance(source, Mapping):
        return Table(where, _arrays(source, where))
    calls: Iterable[Any]
    if callable(getattr(source, "get_next", None)):
        rewinds = callable(getattr(source, "rewind", None))
        calls = _Rewound(source) if rewinds else iter(source.get_next, None)
    elif isinstance(source, Iterable):
        calls = source
    else:
        raise CalibrationError(
            f"{where}: {type(source).__name__} cannot be used as data. Give a mapping of arrays, "
            "an iterable of dicts {input: array}, a CalibrationDataReader, or a path."
        )
    if isinstance(calls, Iterator):
        with _others_code(where):
            calls = _keep(calls, where)

    def entries() -> Iterator[tuple[str, Callable[[], dict[str, Array]]]]:
        with _others_code(where):
            for number, call in enumerate(calls):
                name = f"{where}, call {number}"
                yield name, partial(_arrays, call, name)

    return Calls(where, entries)


class _Rewound:
    """Makes a reader that can rewind iterable again and again, one pass at a time."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._latest = object()

    def __iter__(self) -> Iterator[Any]:
        current = self._latest = object()
        self._reader.rewind()
        while self._latest is current:
            if (call := self._reader.get_next()) is None:
                return
            yield call
        raise CalibrationError("a data reader can only be read by one loop at a time.")


def _keep(calls: Iterable[Any], where: str) -> list[dict[str, Array]]:
    kept, size = [], 0
    for number, call in enumerate(calls):
        arrays = _arrays(call, f"{where}, call {number}")
        size += sum(array.nbytes for array in arrays.values()) + _CALL_OVERHEAD
        if size > KEPT_AT_MOST:
            raise CalibrationError(
                f"{where}: can be read only once, so all of it is kept, at most "
                f"{KEPT_AT_MOST >> 20} MiB, and there is more ({number} calls until here). End "
                "it sooner, give an object whose __iter__ starts anew, or save .npz files."
            )
        kept.append({name: array.copy() for name, array in arrays.items()})
    return kept


def _arrays(call: Any, where: str) -> dict[str, Array]:
    if not isinstance(call, Mapping):
        raise CalibrationError(
            f"{where}: {type(call).__name__} where a dict {{input: array}} is needed."
        )
    with _others_code(where):
        return {str(name): np.asarray(value) for name, value in call.items()}


def _call_script(path: Path, function: str) -> Any:
    if not path.is_file():
        raise CalibrationError(f"{path}: no such script.")
    where, folder = f"{path}:{function}", str(path.parent.resolve())
    sys.path.insert(0, folder)  # as Python does when it runs a script
    try:
        with _others_code(where):
            found = runpy.run_path(str(path))
        if function in found and not callable(found[function]):
            kind = type(found[function]).__name__
            raise CalibrationError(
                f"{path}: {function!r} in it is no function but {kind}. Name one that gives data."
            )
        if function not in found:
            functions = [name for name, value in found.items() if callable(value)]
            close = difflib.get_close_matches(function, functions, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise CalibrationError(f"{path}: no function {function!r} in it.{hint}")
        with _others_code(where):
            return found[function]()
    finally:
        sys.path.remove(folder)


@contextmanager
def _others_code(where: str) -> Iterator[None]:
    """Turns whatever the user's own code raises into a message."""
    try:
        yield
    except CalibrationError:
        raise
    except (Exception, SystemExit) as error:
        raise CalibrationError(
            f"{where}: raised {type(error).__name__}: {error}. Does it run on its own?"
        ) from error
