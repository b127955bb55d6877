"""Original against compressed: how far the outputs moved, and what was gained."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.calibration import Calibration, aligned
from onnxrd.distortion import (
    Head,
    Task,
    Tasks,
    distortion,
    find_heads,
    ignored,
    log_probabilities,
)
from onnxrd.errors import ModelError, SettingError, VerificationError
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, LEVELS, Runtime, Session
from onnxrd.graph.specs import InputSpec
from onnxrd.graph.weights import find_weights
from onnxrd.progress import Track, silent

Array = NDArray[Any]

TOLERANCE = 1e-4
"""Largest difference, relative to the largest output, between a written model and the dense one."""

ROUNDINGS = 4
"""The same in roundings, where a model computes with less than single precision."""

BATCH = 64

LARGEST_MADE_UP = 1 << 28
"""Numbers in an input that is made up where there are no data."""

TIMING_SECONDS = 1.0
"""How long the latency of two models is compared, roughly."""


@dataclass(frozen=True)
class Estimate:
    """A mean over samples with its standard error."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Sequence[float] | Array) -> "Estimate":
        """Of a list with one number for each sample."""
        array = np.asarray(values, np.float64)
        error = array.std(ddof=1) / np.sqrt(array.size) if array.size > 1 else float("nan")
        return cls(float(array.mean()), float(error))


@dataclass(frozen=True)
class HeadEvaluation:
    """What happened at one output.

    Attributes:
        output: its name.
        task: "classification" (distortion is D_KL(original ‖ compressed), nats) or "regression"
            (distortion is the squared error of a sample).
        distortion: mean over the samples.
        relative_error: regression: squared error over the original's mean squared norm.
        agreement: classification: share of positions where both predict the same class.
        cross_entropy: (original, compressed) against the labels, nats.
        accuracy: (original, compressed) against the labels.
        energy: regression: the original's mean squared norm.
    """

    output: str
    task: Task
    distortion: Estimate
    relative_error: float | None = None
    agreement: float | None = None
    cross_entropy: tuple[float, float] | None = None
    accuracy: tuple[float, float] | None = None
    energy: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Original against compressed.

    Attributes:
        heads: one for each floating-point output.
        samples: how many were run.
        nbytes: (original, compressed) bytes on disk.
        parameters: floating-point constants of the original.
        load_seconds: (original, compressed), medians; None where not timed.
        latency_ratio: compressed over original, median of paired runs.
    """

    heads: tuple[HeadEvaluation, ...]
    samples: int
    nbytes: tuple[int, int]
    parameters: int
    load_seconds: tuple[float, float] | None = None
    latency_ratio: float | None = None

    @property
    def ratio(self) -> float:
        """How many times smaller the compressed file is."""
        return self.nbytes[0] / self.nbytes[1]

    @property
    def bits_per_weight(self) -> float:
        """Bits of the whole compressed file for each floating-point constant of the original."""
        return 8 * self.nbytes[1] / max(self.parameters, 1)

    @property
    def distortion(self) -> float:
        """Sum of the mean distortions of all heads."""
        return sum(head.distortion.mean for head in self.heads)

    @property
    def relative_error(self) -> float | None:
        """Squared error over the squared norm of all outputs; None if some are classes."""
        energy = sum(head.energy or 0.0 for head in self.heads)
        regression = all(head.task == "regression" for head in self.heads)
        return self.distortion / energy if regression and energy else None


@dataclass
class _Collected:
    """Numbers of one head, gathered batch by batch."""

    distortions: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    losses: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    hits: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def add(self, head: Head, original: Array, compressed: Array, labels: Array | None) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # shows as NaN or infinity
            self._add(head, original, compressed, labels)

    def _add(self, head: Head, original: Array, compressed: Array, labels: Array | None) -> None:
        self.distortions += distortion(head, original, compressed).tolist()
        if head.task == "regression":
            self.energies += distortion(head, original, np.zeros_like(original)).tolist()
            return
        said = [log_probabilities(head, outputs) for outputs in (original, compressed)]
        best = [s.argmax(axis=-1) for s in said]
        self.agreements += (best[0] == best[1]).mean(axis=-1).tolist()
        if labels is None or labels.size != best[0].size:
            return
        truth = labels.reshape(best[0].shape)
        for which in (0, 1):
            chosen = np.take_along_axis(said[which], truth[..., None], axis=-1)[..., 0]
            self.losses[which].extend((-chosen).mean(axis=-1).tolist())
            self.hits[which].extend((best[which] == truth).mean(axis=-1).tolist())

    def result(self, head: Head) -> HeadEvaluation:
        labelled = bool(self.hits[0])
        energy = float(np.mean(self.energies)) if self.energies else 0.0
        return HeadEvaluation(
            head.output,
            head.task,
            Estimate.of(self.distortions),
            relative_error=float(np.mean(self.distortions)) / energy if energy else None,
            agreement=float(np.mean(self.agreements)) if self.agreements else None,
            cross_entropy=_pair(self.losses) if labelled else None,
            accuracy=_pair(self.hits) if labelled else None,
            energy=energy if self.energies else None,
        )


def evaluate(
    original: Model,
    compressed: Model,
    data: Calibration,
    *,
    task: Tasks = None,
    timed: bool = True,
    runtime: Runtime = DEFAULT,
    track: Track = silent,
) -> Evaluation:
    """Run both models on the same samples and compare.

    Args:
        original: the reference.
        compressed: any model with the same inputs and outputs, also one written by another tool.
        data: samples, with labels or without.
        task: overrides what the original's graph says.
        timed: measure load time and latency too.
        runtime: threads and provider.
        track: shows progress.

    Raises:
        ModelError: inputs or outputs differ in name, or a model does not run.
        CalibrationError: labels out of range.
        SettingError: these are paths, of models or data.
    """
    if not (isinstance(original, Model) and isinstance(compressed, Model)):
        raise SettingError("evaluate compares models: read files by onnxrd.load_model first.")
    if not isinstance(data, Calibration):
        raise SettingError("evaluate needs data that were read: by onnxrd.load_data.")
    if missing := set(original.outputs) - set(compressed.outputs):
        raise ModelError(f"{compressed.path} has no output {sorted(missing)[0]!r}.")
    data = aligned(original, data, runtime, ignored(task, original.outputs))
    heads = find_heads(original.prepared(), task, sample_axis=data.sample_axis)
    loads = _load_seconds((original, compressed), runtime) if timed else None
    sessions = [Session(m.path, runtime=runtime) for m in (original, compressed)]
    collected = {head.output: _Collected() for head in heads}
    steps = -(-data.samples // BATCH)
    checked = False
    for batch in track(data.batches(BATCH), "evaluating", steps):
        before, after = (session.run(batch.feeds) for session in sessions)
        for head in heads:
            rows = [outputs[head.output] for outputs in (before, after)]
            if data.sample_axis:
                rows = [r[: batch.size] for r in rows]
            if rows[0].shape != rows[1].shape:
                raise ModelError(
                    f"output {head.output!r} has shape {list(rows[0].shape)} in the original and "
                    f"{list(rows[1].shape)} in {compressed.path}. Are these the same network? If "
                    "it holds what was found, as behind NonMaxSuppression, leave it out: --output "
                    f"{head.output}=ignore."
                )
            if not checked and head.task == "classification":
                data.check_labels(log_probabilities(head, rows[0]).shape[-1])
            collected[head.output].add(head, rows[0], rows[1], batch.labels)
        checked = True
    ratio = _latency_ratio(sessions, data) if timed else None
    return Evaluation(
        tuple(collected[head.output].result(head) for head in heads),
        data.samples,
        (original.nbytes, compressed.nbytes),
        count_parameters(original),
        loads,
        ratio,
    )


def count_parameters(model: Model) -> int:
    """Entries of all floating-point constants of a model, those of Constant nodes included."""
    return sum(weight.size for weight in find_weights(model) if weight.floating)


def verify(
    written: Path,
    dense: Path,
    feeds: Mapping[str, Array],
    runtime: Runtime = DEFAULT,
    *,
    precision: float = 0.0,
) -> None:
    """Run a written file at every optimization level against the dense model it stands for.

    Args:
        written: the file.
        dense: file of the original graph with the dequantized weights in it.
        feeds: inputs to run both on.
        runtime: threads and provider.
        precision: of the numbers that the model computes with, if less than single: their eps.

    Raises:
        VerificationError: it does not load or run, or its outputs differ.
    """
    for level in LEVELS:
        expected = Session(dense, level=level, runtime=runtime).run(feeds)
        try:
            found = Session(written, level=level, runtime=runtime).run(feeds)
        except ModelError as error:
            raise VerificationError(
                f"the written model fails at level {level!r}: {error}"
            ) from error
        for name, values in expected.items():
            if not _close(found[name], values, max(TOLERANCE, ROUNDINGS * precision)):
                raise VerificationError(
                    f"output {name!r} of the written model differs from the dense model with the "
                    f"same weights at optimization level {level!r}. Nothing was written."
                )


def example_feeds(inputs: Sequence[InputSpec], seed: int = 0) -> dict[str, Array]:
    """Something to feed where there are no data: noise for floats, zeros for the others."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for spec in inputs:
        shape = [d if isinstance(d, int) else 1 for d in spec.shape or ()]
        if not all(d >= 0 for d in shape) or math.prod(shape) > LARGEST_MADE_UP:
            raise ModelError(f"input {spec} is too large to make up. Give data.")
        noise = rng.standard_normal(shape) if spec.dtype.kind == "f" else np.zeros(shape)
        feeds[spec.name] = noise.astype(spec.dtype)
    return feeds


def _close(found: Array, expected: Array, tolerance: float) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if expected.dtype.kind != "f":
        return bool((found == expected).all())
    scale = float(np.max(np.abs(expected), where=np.isfinite(expected), initial=0.0))
    return bool(np.allclose(found, expected, rtol=0, atol=tolerance * scale, equal_nan=True))


def _load_seconds(models: Sequence[Model], runtime: Runtime) -> tuple[float, float]:
    """Medians of 3, in turn; no two models are in memory together."""

    def once(model: Model) -> float:
        start = time.perf_counter()
        Session(model.path, runtime=runtime)
        return time.perf_counter() - start

    before, after = (median(seconds) for seconds in zip(*(map(once, models) for _ in range(3))))
    return before, after


def _latency_ratio(sessions: Sequence[Session], data: Calibration) -> float:
    """The median ratio of paired runs."""
    feeds = next(iter(data.batches(1))).feeds
    first = sum(_run_seconds(session, feeds) for session in sessions)
    pairs = int(np.clip(TIMING_SECONDS / first, 11, 301))
    runs = [[_run_seconds(session, feeds) for session in sessions] for _ in range(pairs)]
    return median(b / a for a, b in runs)


def _run_seconds(session: Session, feeds: Mapping[str, Array]) -> float:
    start = time.perf_counter()
    session.run(feeds)
    return time.perf_counter() - start


def _pair(lists: tuple[list[float], list[float]]) -> tuple[float, float]:
    return float(np.mean(lists[0])), float(np.mean(lists[1]))
