"""What all commands that compress have in common."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from onnxrd.distortion import Tasks
from onnxrd.errors import SettingError
from onnxrd.graph.model import PathLike
from onnxrd.graph.session import DEFAULT, Runtime
from onnxrd.importance import Estimator
from onnxrd.progress import Track, silent

Objective = Literal["fisher", "regression", "gradient", "hessian", "gradient+hessian", "identity"]


@dataclass(frozen=True)
class Options:
    """Settings of a compression.

    Attributes:
        objective: "fisher" (for the task that the graph shows), "regression" (Fisher with squared
            error whatever the graph shows), "gradient", "hessian" or "gradient+hessian" (of the
            loss, which takes labels), or "identity" (the baseline: all weights alike).
        estimator: of the sum over classes or outputs.
        temperature: "auto" for the best one instead of the estimator's, see `onnxrd.measurement`.
        damping: of importance, see `Importance.damped`; None for the one it was measured with, or
            with labels for the one that is best on samples held out.
        task: overrides what the end of the graph says, for all outputs or by name.
        samples: take so many of the calibration samples at random; None for all.
        seed: of that choice (the estimator has its own).
        exclude: patterns (`*`, `?`) of names of weights to leave alone; a string is one pattern.
        encoding: name of the encoding to force; None for the cheapest of each weight.
        max_load_memory: bytes of memory that onnxruntime may take when it loads the output, about;
            None for 1 GiB, or four times the network in float32 if that is more.
        keep_names: leave names of nodes and inner values, doc strings and what the exporter noted
            down as they are. Else they are dropped or made short, see `onnxrd.graph.lean`; only
            inputs, outputs and compressed weights, as values, keep their names in any case.
        force: write the output even if it is not smaller.
        cache: folder to keep importance in, and what else is worth it, for the next time; made if
            need be. None for none.
        runtime: how onnxruntime runs networks: threads and provider.
        track: shows progress.
    """

    objective: Objective = "fisher"
    estimator: Estimator = field(default_factory=Estimator)
    temperature: Literal["auto"] | None = None
    damping: float | None = None
    task: Tasks = None
    samples: int | None = 512
    seed: int = 0
    exclude: str | Sequence[str] = ()
    encoding: str | None = None
    max_load_memory: int | None = None
    keep_names: bool = False
    force: bool = False
    cache: PathLike | None = None
    runtime: Runtime = DEFAULT
    track: Track = silent

    def __post_init__(self) -> None:
        if self.damping is not None and not 0 <= self.damping < math.inf:
            raise SettingError(f"damping {self.damping} must be 0 or more, and finite.")
        if self.seed < 0:
            raise SettingError(f"seed {self.seed} is negative: take 0 or more.")
        if self.max_load_memory is not None and self.max_load_memory < 1:
            raise SettingError("memory for loading must be given as some bytes, such as 2GiB.")
