"""Open an onnxruntime session from an archive, without a file in between."""

import math
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
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
    packed = Path(path).is_file() and is_archive(path)
    files = _restored(path, max_size) if packed else {}
    source = bytes(files.pop("")) if packed else str(load(Path(path)).path)
    try:
        if isinstance(source, bytes):
            source, lent = _with_external_data(source, files, options)
        session = ort.InferenceSession(source, options, providers or ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen exception types without a common base
        raise ModelError(f"onnxruntime cannot load {path}: {error}") from error
    vars(session)["_onnxrd_lent"] = lent  # the session works in their memory as long as it lives
    return session


def _restored(path: PathLike, max_size: int | None) -> dict[str, bytearray]:
    """The files in an archive, by name."""
    with open_archive(path, max_size) as archive:
        files = {entry.name: bytearray() for entry in archive.entries}
        for entry, data in archive.content():
            files[entry.name] += data
    return files


def _with_external_data(
    model: bytes, files: Mapping[str, bytearray], options: ort.SessionOptions
) -> tuple[bytes, list[ort.OrtValue]]:
    """Hand the external data of a model over to onnxruntime, without a copy where it takes them.

    Returns: the model, which holds the rest itself, and what has to live as long as the session.
    """
    proto = onnx.ModelProto.FromString(model)
    outer = [tensor for tensor in proto.graph.initializer if _is_external(tensor)]
    bodies = (*proto.graph.node, *proto.functions)
    inner = [tensor for body in bodies for tensor in _tensors(body) if _is_external(tensor)]
    if not (outer or inner):
        return model, []
    narrow = [tensor for tensor in outer if ir.DataType(tensor.data_type).bitwidth < 8]
    for tensor in (*inner, *narrow):
        tensor.raw_data = bytes(_external_data(tensor, files))
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    values = {tensor.name: _external_value(tensor, files) for tensor in filter(_is_external, outer)}
    lent = list(values.values())
    options.add_external_initializers(list(values), lent)
    return proto.SerializeToString(), lent


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """All tensors in a protobuf message, however deep."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(inner)


def _external_data(tensor: onnx.TensorProto, files: Mapping[str, bytearray]) -> memoryview:
    where = {entry.key: entry.value for entry in tensor.external_data}
    location, offset = posixpath.normpath(where["location"]), int(where.get("offset", 0))
    nbytes = -(-math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth // 8)
    data = memoryview(files.get(location, b""))[offset : offset + nbytes]
    if offset < 0 or len(data) < nbytes:
        raise ValueError(f"external data {location} of {tensor.name!r} are missing or cut short")
    return data


def _external_value(tensor: onnx.TensorProto, files: Mapping[str, bytearray]) -> ort.OrtValue:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    array = np.frombuffer(_external_data(tensor, files), dtype).reshape(tensor.dims)
    if dtype.isbuiltin:
        return ort.OrtValue.ortvalue_from_numpy(array)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, tensor.data_type)
