"""Open an onnxruntime session from an archive, without a file in between."""

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from onnxrd.archive.unpacking import is_archive, open_archive
from onnxrd.errors import ModelError
from onnxrd.graph.model import PathLike, load


def load_session(
    path: PathLike,
    *,
    providers: Sequence[Any] | None = None,
    session_options: ort.SessionOptions | None = None,
    max_size: int | None = None,
) -> ort.InferenceSession:
    """An onnxruntime session of an archive or of a plain .onnx file.

    Args:
        path: of a file that `pack` or anything else wrote.
        providers: as onnxruntime takes them; None for the CPU.
        session_options: of the session. External data of an archive are added to them, so they
            serve for one session only.
        max_size: see `onnxrd.unpack`.

    Raises:
        ModelError: neither an archive nor a model, damaged, too large, or onnxruntime cannot load
            it (its own words are in the message).
    """
    options = session_options or ort.SessionOptions()
    source: str | bytes
    lent: list[ort.OrtValue] = []
    if Path(path).is_file() and is_archive(path):
        source, lent = _restore(path, options, max_size)
    else:
        source = str(load(Path(path)).path)
    try:
        session = ort.InferenceSession(source, options, providers or ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen exception types without a common base
        raise ModelError(f"onnxruntime cannot load {path}: {error}") from error
    vars(session)["_onnxrd_lent"] = lent  # the session works in their memory as long as it lives
    return session


def _restore(
    path: PathLike, options: ort.SessionOptions, max_size: int | None
) -> tuple[bytes, list[ort.OrtValue]]:
    """The model's file as bytes, and its external data, given to the options."""
    with open_archive(path, max_size) as archive:
        files = {entry.name: bytearray() for entry in archive.entries}
        for entry, data in archive.content():
            files[entry.name] += data
    model = bytes(files.pop(""))
    return model, _add_external_data(model, files, options) if files else []


def _add_external_data(
    model: bytes, files: Mapping[str, bytearray], options: ort.SessionOptions
) -> list[ort.OrtValue]:
    """Hand the external data of a model over to onnxruntime, without a copy."""
    graph = onnx.ModelProto.FromString(model).graph
    external = [t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    values = [_external_value(tensor, files) for tensor in external]
    options.add_external_initializers([tensor.name for tensor in external], values)
    return values


def _external_value(tensor: onnx.TensorProto, files: Mapping[str, bytearray]) -> ort.OrtValue:
    where = {entry.key: entry.value for entry in tensor.external_data}
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    data = memoryview(files[posixpath.normpath(where["location"])])[int(where.get("offset", 0)) :]
    if "length" in where:
        data = data[: int(where["length"])]
    array = np.frombuffer(data, dtype, count=int(np.prod(tensor.dims, dtype=np.int64)))
    shaped = array.reshape(tensor.dims)
    if dtype.isbuiltin:
        return ort.OrtValue.ortvalue_from_numpy(shaped)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(shaped, tensor.data_type)
