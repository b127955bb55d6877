"""Run graphs with onnxruntime."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from onnxrd.errors import ModelError

Array = NDArray[Any]
Level = Literal["disable", "basic", "extended", "all"]

LEVELS: dict[Level, ort.GraphOptimizationLevel] = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""onnxruntime's optimization levels, by short names."""


class Session:
    """An onnxruntime session over a file or an in-memory graph.

    Args:
        model: path of a model file, or a graph.
        base: folder that the external data of an in-memory graph lie in.
        level: graph optimization level.
        threads: intra-op threads, 0 for onnxruntime's own choice.

    Raises:
        ModelError: onnxruntime cannot load the model (its own words are in the message).
    """

    def __init__(
        self,
        model: Path | ir.Model,
        *,
        base: Path | None = None,
        level: Level = "all",
        threads: int = 0,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = LEVELS[level]
        options.intra_op_num_threads = threads
        source: bytes | str
        if isinstance(model, ir.Model):
            source = ir.to_proto(model).SerializeToString()
            folder = str((base or Path.cwd()).resolve())
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", folder
            )
        else:
            source = os.fspath(model)
        try:
            self._session = ort.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a dozen exception types without a common base
            raise ModelError(f"onnxruntime cannot load the model: {error}") from error
        self.inputs: tuple[str, ...] = tuple(i.name for i in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())

    def run(
        self, feeds: Mapping[str, Array | ort.OrtValue], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Run once and return the outputs that are tensors, of all or of the ones named."""
        values = self.run_values(feeds, outputs)
        return {name: value.numpy() for name, value in values.items() if value.is_tensor()}

    def run_values(
        self, feeds: Mapping[str, Array | ort.OrtValue], outputs: Sequence[str] | None = None
    ) -> dict[str, ort.OrtValue]:
        """Like `run`, with the outputs left in onnxruntime's memory: cheap to feed onwards."""
        wanted = list(self.outputs if outputs is None else outputs)
        values = {
            name: feed if isinstance(feed, ort.OrtValue) else _to_ort(feed)
            for name, feed in feeds.items()
            if name in self.inputs
        }
        try:
            results = self._session.run_with_ort_values(wanted, values)
        except Exception as error:  # as above
            raise ModelError(f"onnxruntime cannot run the model: {error}") from error
        return dict(zip(wanted, results))


def _to_ort(array: Array) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
