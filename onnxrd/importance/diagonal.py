"""Diagonal Fisher information by runtime autodiff: the paper's importance, eqs. (5) and (6)."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from onnxrd.calibration import Batch, Calibration
from onnxrd.distortion import Task, find_heads
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime
from onnxrd.importance.estimators import Estimator
from onnxrd.importance.importance import Importance
from onnxrd.importance.squares import Pass, Squares
from onnxrd.progress import Track, silent

Array = NDArray[np.float32]


def fisher(
    model: Model,
    data: Calibration,
    *,
    estimator: Estimator | None = None,
    task: Task | None = None,
    batched: bool = True,
    runtime: Runtime = DEFAULT,
    track: Track = silent,
) -> Importance:
    """Importance I_ii = E_x Σ_k (∂f_k/∂w_i)² / f_k of every weight to be compressed.

    For regression heads 2·E_x Σ_k (∂f_k/∂w_i)², so that D ≈ ½ Σ h Δ² in both cases.

    Args:
        model: the network.
        data: calibration samples; labels are not used.
        estimator: of the sum over classes or outputs; one Rademacher probe a sample by default.
        task: overrides what the graph's end says.
        batched: take the batched path if it agrees with one sample at a time.
        runtime: threads and provider.
        track: shows progress.

    Raises:
        ImportanceError: no weight has a derivative, or an output or a gradient is not finite.
        ModelError: a weight is not finite.
        CalibrationError: the data do not fit.
    """
    estimator = estimator or Estimator()
    heads = find_heads(model.prepared(), task, sample_axis=data.sample_axis)

    def passes(sources: Mapping[str, Array], batch: Batch, first: int) -> Iterator[Pass]:
        for seeds in estimator.seeds(heads, sources, first):
            yield Pass(seeds, estimator.scale)

    sources = [head.source for head in heads]
    squares = Squares(model, data, sources, passes, batched=batched, runtime=runtime)
    return Importance(
        squares.mean(track),
        model.digest,
        task="+".join(sorted({head.task for head in heads})),
        estimator=estimator.kind,
        probes=estimator.probes,
        temperature=estimator.temperature,
        samples=data.samples,
        seed=estimator.seed,
        path=squares.path,
        proxies=squares.blocked,
    )
