"""Run graphs with onnxruntime."""

import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from onnxrd.errors import ModelError, SettingError

Array = NDArray[Any]
Level = Literal["disable", "basic", "extended", "all"]

LEVELS: dict[Level, ort.GraphOptimizationLevel] = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""onnxruntime's optimization levels, by short names."""


Provider = Literal["cpu", "cuda"]

PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
"""onnxruntime's execution providers, by short names."""


@dataclass(frozen=True)
class Runtime:
    """How onnxruntime runs networks.

    Attributes:
        threads: of each operator (intra-op), 0 for onnxruntime's own choice.
        provider: "cpu", or "cuda" for an NVIDIA GPU: what the GPU has no kernel for runs on the
            CPU.

    Raises:
        SettingError: the onnxruntime that is installed has no such provider.
    """

    threads: int = 0
    provider: Provider = "cpu"

    def __post_init__(self) -> None:
        if self.provider not in PROVIDERS:
            raise SettingError(f"no provider {self.provider!r}: take {' or '.join(PROVIDERS)}.")
        if PROVIDERS[self.provider] not in ort.get_available_providers():
            raise SettingError(
                f"the onnxruntime that is installed ({ort.__version__}) cannot run on "
                f"{self.provider!r}. Install onnxruntime-gpu in place of onnxruntime, or leave "
                "out --provider."
            )
        if self.threads < 0:
            raise SettingError(f"{self.threads} threads: take 1 or more, 0 for a good number.")


DEFAULT = Runtime()


class Session:
    """An onnxruntime session over a file or an in-memory graph.

    Args:
        model: path of a model file, or a graph.
        base: folder that the external data of an in-memory graph lie in.
        level: graph optimization level.
        runtime: threads and provider.
        lent: inputs that every run is fed with. Where there are some the network is large, and
            memory goes back to the system after each run instead of being kept for the next.

    Raises:
        ModelError: onnxruntime cannot load the model (its own words are in the message).
        SettingError: the provider does not start, for want of a driver for example.
    """

    def __init__(
        self,
        model: Path | ir.Model,
        *,
        base: Path | None = None,
        level: Level = "all",
        runtime: Runtime = DEFAULT,
        lent: Mapping[str, Array] | None = None,
    ) -> None:
        self._lent = {name: _to_ort(array) for name, array in (lent or {}).items()}
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = LEVELS[level]
        options.intra_op_num_threads = runtime.threads
        options.enable_cpu_mem_arena = not lent
        # Between two runs the cores are numpy's: threads that spin there cost a tenth of the time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source: bytes | str
        if isinstance(model, ir.Model):
            source = ir.to_proto(model).SerializeToString()
            folder = str((base or Path.cwd()).resolve())
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", folder
            )
        else:
            source = os.fspath(model)
        wanted = PROVIDERS[runtime.provider]
        providers: list[Any] = [PROVIDERS["cpu"]]
        if runtime.provider == "cuda":
            _find_cuda()
            providers.insert(0, (wanted, {"use_tf32": "0"}))  # ten bits would look like damage
        try:
            self._session = ort.InferenceSession(source, options, providers=providers)
        except Exception as error:  # onnxruntime has a dozen exception types without a common base
            raise ModelError(f"onnxruntime cannot load the model: {error}") from error
        if wanted not in self._session.get_providers():  # it goes on without, silently
            raise SettingError(
                f"onnxruntime cannot start its provider {runtime.provider!r}. Are the driver and "
                "the libraries that onnxruntime-gpu needs installed? Or leave out --provider."
            )
        self.inputs: tuple[str, ...] = tuple(i.name for i in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())

    def run(
        self, feeds: Mapping[str, Array | ort.OrtValue], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Run once and return the outputs that are tensors, of all or of the ones named."""
        values = self.run_values(feeds, outputs)
        return {
            n: v.numpy().copy() if n in self.inputs else v.numpy()
            for n in list(values)
            if (v := values.pop(n)).is_tensor()
        }

    def run_values(
        self, feeds: Mapping[str, Array | ort.OrtValue], outputs: Sequence[str] | None = None
    ) -> dict[str, ort.OrtValue]:
        """Like `run`, with the outputs left in onnxruntime's memory: cheap to feed onwards."""
        wanted = list(self.outputs if outputs is None else outputs)
        values = self._lent | {
            name: feed if isinstance(feed, ort.OrtValue) else _to_ort(feed)
            for name, feed in feeds.items()
            if name in self.inputs
        }
        try:
            results = self._session.run_with_ort_values(wanted, values)
        except Exception as error:  # as above
            raise ModelError(f"onnxruntime cannot run the model: {error}") from error
        # An output that is an input lies in memory that only the value that is fed holds on to.
        return {name: values.get(name, result) for name, result in zip(wanted, results)}


@cache
def _find_cuda() -> None:
    """Load the CUDA libraries that pip has installed, as onnxruntime asks its users to."""
    with redirect_stdout(StringIO()):  # it prints what it does not find
        ort.preload_dlls()


def view(value: ort.OrtValue) -> Array:
    """What is in a tensor, only to be read: shared with onnxruntime where it can, else a copy."""
    return np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value.numpy())


def _to_ort(array: Array) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
