"""Objectives that know the labels: how much an error in each weight changes the loss itself.

With L the cross-entropy of a sample (Gao et al. 2019, table 2):

- gradient: h = E[(∂L)²], of E[(L(ŵ) − L(w))²] ≈ Σ h Δ² to first order;
- hessian: h = E[∂²L], of E[L(ŵ) − L(w)] ≈ ½ Σ h Δ², where the gradient is zero (LeCun et al. 1990);
- gradient+hessian: h as for gradient and q = E[(∂²L)²], of E[(L(ŵ) − L(w))²] ≈ Σ h Δ² + ¼ q Δ⁴.

The second derivatives are those of the Gauss–Newton matrix, Σ_kl ∂z_k/∂w ∂²L/∂z_k∂z_l ∂z_l/∂w. In
a weight that the logits z are piecewise linear in, that is all there is: exact for networks of
ReLU, max pooling and the like. For other weights the result says which operator is curved.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxrd.autodiff.linearity import bends
from onnxrd.autodiff.trace import run_trace
from onnxrd.calibration import Batch, Calibration
from onnxrd.distortion import Head, Tasks, class_count, find_heads, label_seed, positions
from onnxrd.errors import CalibrationError, ImportanceError
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime
from onnxrd.graph.weights import find_weights
from onnxrd.importance.estimators import Estimator
from onnxrd.importance.importance import Importance
from onnxrd.importance.squares import Pass, PassesOf, Squares
from onnxrd.progress import Track, silent

Array = NDArray[np.float32]
Supervised = Literal["gradient", "hessian", "gradient+hessian"]


def supervised(
    model: Model,
    data: Calibration,
    objective: Supervised,
    *,
    estimator: Estimator | None = None,
    task: Tasks = None,
    batched: bool = True,
    runtime: Runtime = DEFAULT,
    track: Track = silent,
) -> Importance:
    """Importance of every weight to be compressed, for the cross-entropy with the labels.

    Args:
        model: a classifier.
        data: calibration samples with labels.
        objective: see above.
        estimator: of second derivatives' sum over classes; a Rademacher probe a sample by default.
            For "gradient+hessian" at least two probes are taken: their product has no bias.
        task: overrides what the graph's end says.
        batched: take the batched path if it agrees with one sample at a time.
        runtime: threads and provider.
        track: shows progress.

    Raises:
        CalibrationError: no labels, or they do not fit the outputs.
        ImportanceError: the network is no classifier, no weight has a derivative, or an output or a
            gradient is not finite.
        ModelError: a weight is not finite.
    """
    estimator = estimator or Estimator()
    if objective == "gradient+hessian" and estimator.kind != "exact":
        estimator = replace(estimator, probes=max(2, estimator.probes))
    head = _head(model, data, task)

    def first(sources: Mapping[str, Array], batch: Batch, start: int) -> Iterable[Pass]:
        logits = sources[head.source]
        seed = label_seed(head, logits, _labels(head, logits, batch), estimator.temperature)
        return [Pass({head.source: seed}, 1.0)]

    def second(sources: Mapping[str, Array], batch: Batch, start: int) -> Iterable[Pass]:
        for draw, seeds in enumerate(estimator.seeds([head], sources, start)):
            yield Pass(seeds, estimator.scale, 0 if estimator.kind == "exact" else draw)

    def squares(passes: PassesOf) -> Squares:
        return Squares(model, data, [head.source], passes, batched=batched, runtime=runtime)

    main = squares(second if objective == "hessian" else first)
    quartic = squares(second).mean_of_squares(track, "curvature") if "+" in objective else {}
    return Importance(
        main.mean(track),
        model.digest,
        objective=objective,
        task="classification",
        estimator="" if objective == "gradient" else estimator.kind,
        probes=1 if objective == "gradient" else estimator.probes,
        temperature=estimator.temperature,
        samples=data.samples,
        seed=estimator.seed,
        path=main.path,
        proxies=main.blocked,
        quartic=quartic,
        gauss_newton={} if objective == "gradient" else _curved(model, data, head, main.blocked),
    )


def _head(model: Model, data: Calibration, task: Tasks) -> Head:
    """The output that the labels belong to."""
    if data.labels is None:
        raise CalibrationError(
            "this objective compares outputs with labels, and the data have none. Add an array "
            "`labels` of integers, or take the objective fisher, which needs none."
        )
    heads = find_heads(model.prepared(), task, sample_axis=data.sample_axis)
    classifiers = [head for head in heads if head.task == "classification"]
    if len(classifiers) != 1:
        raise ImportanceError(
            f"{model.path} has {len(classifiers)} outputs that classify, labels belong to one. "
            "Take the objective fisher, which needs no labels."
        )
    return classifiers[0]


def _labels(head: Head, logits: Array, batch: Batch) -> NDArray[np.int64]:
    """[N, positions], the last sample's repeated where that fills the batch."""
    labels = batch.labels
    assert labels is not None
    count, classes = positions(head, logits.shape)[0], class_count(head, logits.shape)
    if labels.size != batch.size * count:
        raise CalibrationError(
            f"{labels.size // batch.size} labels for each sample do not fit output "
            f"{head.output!r}, which classifies {count} positions."
        )
    if labels.max() >= classes:
        hint = " Do they count from 1? Then subtract 1." if labels.min() == 1 else ""
        raise CalibrationError(
            f"label {labels.max()} is not below the {classes} classes of output {head.output!r}; "
            f"labels count from 0.{hint}"
        )
    labels = labels.reshape(batch.size, count)
    missing = len(logits) - len(labels) if head.sample_axis else 0
    return np.pad(labels, ((0, missing), (0, 0)), mode="edge")


def _curved(
    model: Model, data: Calibration, head: Head, blocked: Mapping[str, str]
) -> dict[str, str]:
    """Weights that the logits are not piecewise linear in: name → the first operator that bends."""
    prepared = model.prepared()
    probe = next(iter(data.batches(1)))
    trace = run_trace(prepared, model.path.parent, probe.feeds)
    values = {v.name: v for node in prepared.graph for v in node.outputs}
    found = {}
    for weight in find_weights(model, prepared):
        if weight.skip or weight.name in blocked:
            continue
        if nodes := bends(trace, prepared.graph.initializers[weight.name], [values[head.source]]):
            found[weight.name] = nodes[0].op_type
    return found
