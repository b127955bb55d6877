"""Models on disk: load, check, and save them whole or not at all."""

import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnx_ir.passes.common as common_passes

from onnxrd.errors import ModelError
from onnxrd.graph.bodies import lift_from_bodies
from onnxrd.graph.checks import check
from onnxrd.graph.detach import detach
from onnxrd.graph.specs import InputSpec

PathLike = str | os.PathLike[str]

ARCHIVE = b"\x89onnxrd"
"""How an archive of `onnxrd pack` begins."""

EXTERNAL_DATA_ABOVE = 1_900_000_000
"""Bytes of weights above which a model is saved with external data (protobuf ends at 2 GiB)."""


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX model as it lies on disk, never changed after loading.

    Attributes:
        ir:   the graph, as `onnx_ir` reads it; weights in external data are read when asked for.
        path: where it was loaded from.
    """

    ir: onnx_ir.Model
    path: Path

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return self.ir.opset_imports.get("", self.ir.opset_imports.get("ai.onnx", 1))

    @cached_property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What a caller has to feed: graph inputs that no initializer provides."""
        graph = self.ir.graph
        return tuple(_input_spec(v) for v in graph.inputs if v.name not in graph.initializers)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        return tuple(str(value.name) for value in self.ir.graph.outputs)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The model's file and the files of its external data."""
        return (self.path, *sorted(self.external))

    @cached_property
    def external(self) -> Mapping[Path, tuple[onnx_ir.ExternalTensor, ...]]:
        """The files of external data, and the tensors in each."""
        found: dict[Path, tuple[onnx_ir.ExternalTensor, ...]] = {}
        for tensor in _external_tensors(self.ir):
            path = Path(tensor.path)
            found[path] = (*found.get(path, ()), tensor)
        return found

    @cached_property
    def nbytes(self) -> int:
        """Bytes on disk, external data included."""
        return sum(file.stat().st_size for file in self.files)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content of the file and of its external data, in hexadecimal."""
        total = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        return total.hexdigest()

    def clone(self) -> onnx_ir.Model:
        """A copy of the graph that may be edited; the weights themselves are shared."""
        return self.ir.clone()

    def holding(self, names: Collection[str]) -> onnx_ir.Model:
        """A copy that may be edited and holds these weights; functions stay unless they hold one.

        Args:
            names: of weights, as in `prepared`.
        """
        model = self.clone()
        if model.functions:
            held = {value.name for graph in model.graphs() for value in graph.initializers.values()}
            held |= {value.name for node in model.graph.all_nodes() for value in node.outputs}
            if not held.issuperset(names):
                common_passes.InlinePass()(model)
        return model

    def prepared(self) -> onnx_ir.Model:
        """A copy ready for analysis: functions inlined, Constant nodes as initializers.

        Values keep their names wherever they had one in the main graph. Constants in the bodies of
        If, Loop and Scan are moved there.
        """
        model = self.clone()
        if model.functions:
            common_passes.InlinePass()(model)
        common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        common_passes.RemoveInitializersFromInputsPass()(model)
        lift_from_bodies(model)
        return model


def load(path: PathLike) -> Model:
    """Load an ONNX model; weights in external data stay on disk until they are needed.

    Raises:
        ModelError: no such file, an archive, not an ONNX model, or external data missing, cut
            short, or outside the folder of the model.
    """
    path = Path(path)
    if not path.is_file():
        what = "this is a folder" if path.is_dir() else "no such file"
        raise ModelError(f"{path}: {what}. Give the path of an .onnx model.")
    try:
        _refuse_archive(path)
        proto = onnx.load(path, load_external_data=False)
        if not proto.graph.output or not proto.opset_import:
            raise ModelError("it holds no ONNX graph with outputs. Is it really an .onnx file?")
        check(proto)
        model = Model(onnx_ir.from_proto(proto), path)
        detach(model.ir)
        del proto
        for tensor in _external_tensors(model.ir):
            tensor.base_dir = path.parent
        _check_external_data(model.ir, path.parent.resolve())
        _ = model.inputs, model.prepared()  # these work, then, as often as needed
        _check_writable(model.clone())
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:  # protobuf, onnx_ir and the OS each have exceptions of their own
        raise ModelError(
            f"{path} is not a readable ONNX model ({_cause(error)}). "
            "Is it complete, and really an .onnx file?"
        ) from error
    return model


def _refuse_archive(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(ARCHIVE)) == ARCHIVE:
            raise ModelError(
                "this is an archive of `onnxrd pack`: restore the model by `onnxrd unpack` first."
            )


def _check_writable(copy: onnx_ir.Model) -> None:
    """That all but the weights can be written again: names need be no text, for example.

    Args:
        copy: of the model; it loses its weights here, so that they need not be copied.
    """
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    for graph in copy.graphs():
        graph.initializers.clear()
    onnx_ir.to_proto(copy)


def save(model: onnx_ir.Model, path: Path, *, external_above: int | None = None) -> None:
    """Write a model file; above 1.9 GB the weights go to `<name>.data` beside it, one by one.

    Weights that lie in external data are read from there and become part of the new file.

    Args:
        model: what to write; left without external data if it is written as one file.
        path: of the file.
        external_above: bytes of weights above which they go to a file of their own, if not 1.9 GB.
    """
    tensors = [v.const_value for v in _initializers(model) if v.const_value is not None]
    limit = EXTERNAL_DATA_ABOVE if external_above is None else external_above
    if sum(tensor.nbytes for tensor in tensors) > limit:
        onnx_ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=1024)
    else:
        onnx_ir.save(onnx_ir.external_data.load_to_model(model), path)


def unloaded(tensor: onnx_ir.TensorProtocol) -> onnx_ir.TensorProtocol:
    """The same tensor; if its data are external, nothing of them is in memory for its sake."""
    if not isinstance(tensor, onnx_ir.ExternalTensor):
        return tensor
    return onnx_ir.ExternalTensor(
        tensor.location,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=str(tensor.name),
        base_dir=tensor.base_dir,
    )


def scratch(temporary: Path) -> Path:
    """A folder for what is needed until the output is complete, and goes with `atomic_output`.

    Args:
        temporary: what `atomic_output` gave.
    """
    folder = temporary.parent.with_name("scratch")
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def atomic_output(path: Path, *, never: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Give a temporary path to write to; move the files there beside `path` if nothing failed.

    Those in folders beside the temporary path go to folders of the same names beside `path`. The
    temporary folder lies beside `path`, so that moving is a rename. After an exception nothing is
    left behind and a file that was at `path` before is as it was.

    Args:
        path: where the output shall appear.
        never: files that must not be overwritten, such as the input.

    Raises:
        ModelError: the folder does not exist or cannot be written, or `path` is one of `never` or
            something else than a file, such as a device.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no ordinary file"
        raise ModelError(f"{path} is {what}. Give the name of the file to write.")
    _refuse(path, never)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise ModelError(f"cannot write to {path.parent} ({error.strerror}).") from error
    inside = folder / "written"
    try:
        inside.mkdir()
        yield inside / path.name
        written = [file for file in inside.rglob("*") if file.is_file()]
        moves = {file: path.parent / file.relative_to(inside) for file in written}
        for target in moves.values():
            _refuse(target, never)
        for file, target in sorted(moves.items(), key=lambda move: move[1] == path):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    except OSError as error:
        raise ModelError(f"cannot write {path} ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse(path: Path, never: tuple[Path, ...]) -> None:
    if any(path.resolve() == other.resolve() for other in never):
        raise ModelError(f"{path} is an input, which is never overwritten. Choose another output.")


def _input_spec(value: onnx_ir.Value) -> InputSpec:
    if value.dtype is None or not isinstance(value.type, onnx_ir.TensorType):
        raise ModelError(f"input {value.name!r} is not a tensor; only tensors can be fed.")
    if value.dtype == onnx_ir.DataType.UNDEFINED:
        raise ModelError(f"input {value.name!r} has no element type. Export the model again.")
    shape = None
    if value.shape is not None:
        axes = (d if isinstance(d, int) else d.value for d in value.shape)
        shape = tuple(None if isinstance(d, int) and d < 0 else d for d in axes)  # Paddle's −1
    return InputSpec(str(value.name), np.dtype(value.dtype.numpy()), shape)


def _initializers(model: onnx_ir.Model) -> Iterator[onnx_ir.Value]:
    for graph in model.graphs():
        yield from graph.initializers.values()


def _external_tensors(model: onnx_ir.Model) -> Iterator[onnx_ir.ExternalTensor]:
    for value in _initializers(model):
        if isinstance(value.const_value, onnx_ir.ExternalTensor):
            yield value.const_value
    inner = (function.all_nodes() for function in model.functions.values())
    for node in itertools.chain(model.graph.all_nodes(), *inner):
        for attribute in node.attributes.values():
            if not attribute.is_ref() and isinstance(attribute.value, onnx_ir.ExternalTensor):
                yield attribute.value


def _check_external_data(model: onnx_ir.Model, folder: Path) -> None:
    for tensor in _external_tensors(model):
        file = (folder / tensor.location).resolve()
        if not file.is_relative_to(folder) and (folder / tensor.location).is_symlink():
            raise ModelError(
                f"external data {tensor.location} are a link out of the model's folder. Refused: "
                "put a copy in its place (from a download cache, cp -rL copies the whole folder)."
            )
        if not file.is_relative_to(folder):
            raise ModelError(
                f"weight {tensor.name!r} points to {tensor.location}, outside the model's "
                "folder. Refused: move the data beside the model and save the model again."
            )
        if not file.is_file():
            raise ModelError(
                f"external data {tensor.location} is missing. Put it beside the model."
            )
        if file.stat().st_nlink > 1:
            raise ModelError(
                f"external data {tensor.location} is a hard link: it could be any file. Refused: "
                "put a copy in its place."
            )
        start, length = tensor.offset or 0, tensor.length or tensor.nbytes
        if length != tensor.nbytes:
            raise ModelError(
                f"weight {tensor.name!r} has {tensor.nbytes} bytes, but is said to take {length} "
                f"from byte {start} of {tensor.location}. Export the model again."
            )
        end = start + length
        if file.stat().st_size < end:
            raise ModelError(
                f"external data {tensor.location} is cut short: weight {tensor.name!r} "
                f"ends at byte {end}, the file has {file.stat().st_size}. Copy it again."
            )


def _cause(error: BaseException) -> str:
    """What went wrong in the first place, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().rstrip(".").splitlines()
    return lines[0][:200] if lines else type(error).__name__
