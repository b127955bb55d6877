"""Diagonal Fisher information by runtime autodiff: the paper's importance, eqs. (5) and (6)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxrd.autodiff.engine import Mode
from onnxrd.autodiff.gradients import (
    Gradients,
    batched_squares,
    reference_squares,
    why_not_batched,
)
from onnxrd.autodiff.trace import Trace
from onnxrd.calibration import Batch, Calibration
from onnxrd.distortion import Head, Task, find_heads
from onnxrd.errors import ImportanceError, ModelError
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime
from onnxrd.graph.weights import find_weights
from onnxrd.importance.estimators import Estimator
from onnxrd.importance.importance import Importance
from onnxrd.progress import Track, silent

Array = NDArray[np.float32]
log = logging.getLogger(__name__)

LARGEST_BATCH = 64
MEMORY = 1 << 29
"""Bytes that one batch's intermediate values may take, roughly."""


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
    prepared = model.prepared()
    heads = find_heads(prepared, task, sample_axis=data.sample_axis)
    weights = [w for w in find_weights(model, prepared) if not w.skip]
    if not weights:
        raise ImportanceError(f"{model.path} has no weights to compress.")
    for weight in weights:
        weight.array()  # raises if an entry is not finite, which no gradient could tell
    base, sources = model.path.parent, [head.source for head in heads]
    probe = next(iter(data.batches(1)))
    every = Gradients(prepared, base, sources, [w.name for w in weights], runtime=runtime)
    blocked = every.blocked(probe.feeds)
    reachable = [w for w in weights if w.name not in blocked]
    if not reachable:
        raise ImportanceError(
            f"no weight has a derivative: {next(iter(blocked.values()))}. "
            "Identity importance needs none."
        )
    gradients = Gradients(prepared, base, sources, [w.name for w in reachable], runtime=runtime)
    run = _Run(gradients, estimator, heads)
    size, why = run.choose_path(model, data, every.trace(probe.feeds), batched)
    every.release()
    totals = run.totals(data, size, batched=not why, track=track)
    values = {name: total / np.float32(data.samples) for name, total in totals.items()}
    _check_finite(values)
    mean = sum(float(v.sum(dtype=np.float64)) for v in values.values()) / sum(
        v.size for v in values.values()
    )
    values |= {w.name: np.full(w.shape, mean, np.float32) for w in weights if w.name in blocked}
    return Importance(
        values,
        model.digest,
        task="+".join(sorted({head.task for head in heads})),
        estimator=estimator.kind,
        probes=estimator.probes,
        temperature=estimator.temperature,
        samples=data.samples,
        seed=estimator.seed,
        path=f"one sample at a time: {why}" if why else "batched",
        proxies=blocked,
    )


@dataclass(frozen=True)
class _Run:
    gradients: Gradients
    estimator: Estimator
    heads: Sequence[Head]

    def choose_path(
        self, model: Model, data: Calibration, trace: Trace, batched: bool
    ) -> tuple[int, str]:
        """(batch size, why not batched): the batched path is used only if it agrees."""
        fixed = {spec.shape[0] for spec in model.inputs if spec.shape}
        if not data.sample_axis:
            return 1, "the data have no sample axis"
        if not batched:
            return 1, "asked for"
        if 1 in fixed:
            return 1, "the model takes one sample at a time"
        pair = next(iter(data.batches(2)))
        if pair.size < 2:
            return 1, "a single sample"
        try:
            why = self._check(pair)
        except ModelError as error:
            why = f"the model does not run on batches ({str(error)[:100]})"
        log.info("batched path: %s", why or "agrees with one sample at a time")
        if why:
            return 1, why
        return next((n for n in fixed if isinstance(n, int)), _batch_size(trace)), ""

    def totals(
        self, data: Calibration, size: int, *, batched: bool, track: Track
    ) -> dict[str, Array]:
        """Σ over samples and passes of squared gradients, scaled to one pass."""
        mode: Mode = "squares" if batched else "squared gradient"
        squares = batched_squares if batched or not data.sample_axis else reference_squares
        totals: dict[str, Array] = {}
        steps = -(-data.samples // size)
        done = 0
        for batch in track(data.batches(size), "importance", steps):
            feeds = _padded(batch, size) if batched else batch.feeds
            forward = self.gradients.forward(mode, feeds)
            for seeds in self.estimator.seeds(self.heads, forward.sources, done):
                if data.sample_axis:
                    seeds = {name: _masked(seed, batch.size) for name, seed in seeds.items()}
                for name, square in squares(self.gradients, forward, seeds).items():
                    square = square * np.float32(self.estimator.scale)
                    totals[name] = totals[name] + square if name in totals else square
            done += batch.size
        return totals

    def _check(self, pair: Batch) -> str:
        forward = self.gradients.forward("squared gradient", pair.feeds)
        seeds = next(self.estimator.seeds(self.heads, forward.sources, 0))
        return why_not_batched(
            self.gradients,
            pair.feeds,
            {name: _masked(seed, pair.size) for name, seed in seeds.items()},
        )


def _masked(seed: Array, real: int) -> Array:
    """Cotangents that are zero for the samples that only fill the batch."""
    return seed if len(seed) == real else np.concatenate([seed[:real], 0 * seed[real:]])


def _padded(batch: Batch, size: int) -> dict[str, Array]:
    """Repeat the last sample up to the full size, so that no other shapes come up."""
    missing = size - batch.size
    if missing <= 0:
        return batch.feeds
    return {
        name: np.concatenate([feed, np.repeat(feed[-1:], missing, axis=0)])
        if len(feed) == batch.size
        else feed
        for name, feed in batch.feeds.items()
    }


def _batch_size(trace: Trace) -> int:
    """Samples whose activations, windows and gradients fit in the memory set aside."""
    activations = [int(np.prod(s)) for v, s in trace.shapes.items() if not v.is_initializer()]
    weights = [int(np.prod(s)) for v, s in trace.shapes.items() if v.is_initializer()]
    nbytes = 4 * (3 * sum(activations) + 16 * max(activations) + 2 * max(weights, default=0))
    return int(np.clip(MEMORY // nbytes, 1, LARGEST_BATCH))


def _check_finite(values: Mapping[str, Array]) -> None:
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ImportanceError(
                f"the gradient of weight {name!r} is not finite. "
                "Do the data have the scale that the model was trained with?"
            )
