"""Diagonal Fisher information by runtime autodiff: the paper's importance, eqs. (5) and (6)."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from onnxrd.calibration import Batch, Calibration, aligned
from onnxrd.distortion import Tasks, find_heads, ignored
from onnxrd.errors import ImportanceError
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime
from onnxrd.importance.differences import Differences
from onnxrd.importance.estimators import Estimator
from onnxrd.importance.finite_difference import fallback
from onnxrd.importance.importance import Importance
from onnxrd.importance.squares import Pass, Squares
from onnxrd.progress import Track, silent

Array = NDArray[np.float32]


def fisher(
    model: Model,
    data: Calibration,
    *,
    estimator: Estimator | None = None,
    task: Tasks = None,
    batched: bool = True,
    runtime: Runtime = DEFAULT,
    track: Track = silent,
) -> Importance:
    """Importance I_ii = E_x Σ_k (∂f_k/∂w_i)² / f_k of every weight to be compressed.

    For regression heads 2·E_x Σ_k (∂f_k/∂w_i)², so that D ≈ ½ Σ h Δ² in both cases.

    By autodiff, exactly; weights upstream of an operator without a derivative by finite
    differences, as finely as a bounded number of forward passes allows; what is left gets the mean
    of those that autodiff measured. The result says which is which.

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
    data = aligned(model, data, runtime, ignored(task, model.outputs))
    heads = find_heads(model.prepared(), task, sample_axis=data.sample_axis)

    def passes(sources: Mapping[str, Array], batch: Batch, first: int) -> Iterator[Pass]:
        for seeds in estimator.seeds(heads, sources, first):
            yield Pass(seeds, estimator.scale)

    sources = [head.source for head in heads]
    squares = Squares(model, data, sources, passes, batched=batched, runtime=runtime)
    values = squares.mean(track) if squares.reachable else {}
    groups: dict[str, str] = {}
    failed: dict[str, str] = {}
    if squares.blocked:
        differences = Differences(model, data, estimator, task, runtime)
        found, groups, failed = fallback(differences, list(squares.blocked), track)
        values |= found
    if missing := failed.keys() - values.keys():
        raise ImportanceError(
            f"no weight has a derivative: {squares.blocked[min(missing)]}, and "
            f"{failed[min(missing)]}. Identity importance needs none."
        )
    return Importance(
        values,
        model.digest,
        task="+".join(sorted({head.task for head in heads})),
        estimator=estimator.kind,
        probes=estimator.probes,
        temperature=estimator.temperature,
        samples=data.samples,
        seed=estimator.seed,
        path=squares.path,
        proxies={name: f"{squares.blocked[name]}, and {why}" for name, why in failed.items()},
        fallbacks={name: squares.blocked[name] for name in groups},
        grouped={name: group for name, group in groups.items() if group},
    )
