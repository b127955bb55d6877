"""What all commands that compress have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from onnxrd.distortion import Task
from onnxrd.importance import DAMPING, Estimator
from onnxrd.progress import Track, silent

Objective = Literal["fisher", "regression", "identity"]


@dataclass(frozen=True)
class Options:
    """Settings of a compression.

    Attributes:
        objective: "fisher" (for the task that the graph shows), "regression" (Fisher with squared
            error whatever the graph shows), or "identity" (the baseline: all weights alike).
        estimator: of the sum over classes or outputs.
        damping: of importance, see `Importance.damped`.
        task: overrides what the end of the graph says.
        samples: take so many of the calibration samples at random; None for all.
        seed: of that choice (the estimator has its own).
        exclude: patterns (`*`, `?`) of names of weights to leave alone.
        encoding: name of the encoding to force; None for the cheapest of each weight.
        force: write the output even if it is not smaller.
        threads: for onnxruntime, 0 for its own choice.
        track: shows progress.
    """

    objective: Objective = "fisher"
    estimator: Estimator = field(default_factory=Estimator)
    damping: float = DAMPING
    task: Task | None = None
    samples: int | None = 512
    seed: int = 0
    exclude: Sequence[str] = ()
    encoding: str | None = None
    force: bool = False
    threads: int = 0
    track: Track = silent
