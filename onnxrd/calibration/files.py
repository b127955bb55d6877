"""Arrays in files: `.npz`, and tensors as ONNX test data have them."""

import math
import re
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from onnxrd.calibration.checks import Array
from onnxrd.errors import CalibrationError

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: Path) -> dict[str, Array]:
    """Read the arrays of an `.npz` file; those that are not compressed are only mapped.

    Raises:
        CalibrationError: not an `.npz`, cut short, broken, or with pickled objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename.removesuffix(".npy"): _read_member(path, archive, info)
                for info in archive.infolist()
            }
    except CalibrationError:
        raise
    except Exception as error:  # zipfile, zlib, numpy and the OS each have exceptions of their own
        raise CalibrationError(
            f"{path}: not a readable .npz file ({error}). Is it complete? Write it with "
            "np.savez(path, **{input: array})."
        ) from error


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Read an array, or map it if it lies in the file as it is."""
    with archive.open(info) as stream:
        header = _HEADERS.get(np.lib.format.read_magic(stream))
        if header:
            shape, fortran, dtype = header(stream)
            if dtype.hasobject:
                raise CalibrationError(
                    f"{path}: array {info.filename.removesuffix('.npy')!r} holds Python objects, "
                    "which are not unpickled, for safety. Save it with a plain dtype."
                )
            if info.compress_type == zipfile.ZIP_STORED:
                if stream.tell() + math.prod(shape) * dtype.itemsize > info.file_size:
                    raise ValueError(f"{info.filename} is cut short")
                start = _start_of_member(path, info) + stream.tell()
                return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


def _start_of_member(path: Path, info: zipfile.ZipInfo) -> int:
    """The offset of a member's data: its local header has 30 bytes, a name and an extra field."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        return info.header_offset + 30 + int(sum(struct.unpack("<HH", file.read(4))))


def read_test_data(names: Sequence[str], folder: Path) -> dict[str, Array]:
    """Read `input_K.pb` files, the K-th of which belongs to the K-th name.

    Raises:
        CalibrationError: a file is no tensor, or K is beyond the names.
    """
    arrays = {}
    for file in sorted(folder.glob("input_*.pb")):
        match = re.fullmatch(r"input_(\d+)\.pb", file.name)
        if match is None or int(match[1]) >= len(names):
            raise CalibrationError(f"{file}: the model has {len(names)} inputs, counted from 0.")
        try:
            tensor = onnx.TensorProto.FromString(file.read_bytes())
            arrays[names[int(match[1])]] = numpy_helper.to_array(tensor, str(folder))
        except Exception as error:  # protobuf, onnx and the OS each have exceptions of their own
            raise CalibrationError(f"{file}: not a readable ONNX tensor ({error}).") from error
    return arrays
