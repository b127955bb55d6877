"""The damage, measured on samples that nothing was fitted to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.calibration import Calibration
from onnxrd.distortion import Head, distortion, log_probabilities, log_softmax
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime, Session

Array = NDArray[Any]

BATCH = 32
KEPT = 1 << 30
"""Bytes that the original's outputs may take so that they are kept."""

CONFIDENT = 0.9
"""A network whose mean confidence is above this is softened until it is not."""


@dataclass(frozen=True)
class Damage:
    """How far a changed network is from the original.

    Attributes:
        distortion: mean over the samples, summed over the heads (as `Evaluation.distortion`).
        relative: the same over the mean squared norm of the outputs; for regression alone.
        smooth: distortion at a temperature at which the network is not sure of everything. It says
            the same with far less noise, where a few samples near a decision make up the other.
        drop: of accuracy, as a share of the samples; None without labels.
    """

    distortion: float
    relative: float
    smooth: float
    drop: float | None


class HeldOut:
    """Measures changed networks on the same samples.

    Args:
        model: the original.
        prepared: its prepared graph.
        heads: what to compare.
        data: the samples.
        runtime: threads and provider.
    """

    def __init__(
        self,
        model: Model,
        prepared: ir.Model,
        heads: tuple[Head, ...],
        data: Calibration,
        runtime: Runtime = DEFAULT,
    ) -> None:
        self.model, self.prepared, self.heads, self.data = model, prepared, heads, data
        self._runtime = runtime
        self._original = Session(model.path, runtime=runtime)
        self._outputs = [self._original.run(b.feeds) for b in data.batches(BATCH)]
        self.temperature = softening(heads, self._outputs)

    def measure(self, constants: Mapping[str, Array]) -> Damage:
        """The damage of replacing constants of the prepared graph, by name."""
        session = Session(replaced(self.prepared, constants), base=self.model.path.parent, runtime=self._runtime)
        totals: list[list[float]] = [[], [], [], []]
        for batch, before in zip(self.data.batches(BATCH), self._outputs):
            after = session.run(batch.feeds)
            for number, value in enumerate(self._compare(before, after, batch)):
                totals[number] += value
        distortions, smooth, energies, drops = (np.asarray(t) for t in totals)
        return Damage(
            float(distortions.mean()),
            float(distortions.mean() / energies.mean()) if energies.size else float("nan"),
            float(smooth.mean()),
            float(drops.mean()) if drops.size else None,
        )

    def _compare(self, before: Mapping[str, Array], after: Mapping[str, Array], batch: Any) -> Any:
        plain, smooth, energy, drop = 0.0, 0.0, [], []
        for head in self.heads:
            rows = [o[head.output] for o in (before, after)]
            if head.sample_axis:
                rows = [r[: batch.size] for r in rows]
            plain = plain + distortion(head, *rows)
            smooth = smooth + softened(head, *rows, self.temperature)
            if head.task == "regression":
                energy += distortion(head, rows[0], np.zeros_like(rows[0])).tolist()
            elif batch.labels is not None:
                drop += _drops(head, rows, batch.labels)
        return plain.tolist(), smooth.tolist(), energy, drop


def replaced(prepared: ir.Model, constants: Mapping[str, Array]) -> ir.Model:
    """A copy of a prepared graph with other values in some of its constants."""
    copy = prepared.clone()
    for name, array in constants.items():
        copy.graph.initializers[name].const_value = ir.tensor(array, name=name)
    return copy


def softened(head: Head, original: Array, changed: Array, temperature: float) -> Array:
    """Distortion of each sample, [N], with both outputs at a temperature (classification)."""
    if head.task == "regression":
        return distortion(head, original, changed)
    p, q = (log_softmax(log_probabilities(head, o) / temperature) for o in (original, changed))
    return np.asarray((np.exp(p) * (p - q)).sum(axis=-1).mean(axis=-1))


def softening(heads: tuple[Head, ...], outputs: list[dict[str, Array]]) -> float:
    """The lowest of a few temperatures at which the network is no longer sure of everything."""
    for temperature in (1.0, 2.0, 4.0):
        confidence = [
            float(np.exp(log_softmax(log_probabilities(h, o[h.output]) / temperature)).max(-1).mean())
            for h in heads
            if h.task == "classification"
            for o in outputs
        ]
        if not confidence or np.mean(confidence) <= CONFIDENT:
            break
    return temperature


def _drops(head: Head, rows: list[Array], labels: Array) -> list[float]:
    """Of each sample, 1 if only the original is right, -1 if only the other one is."""
    best = [log_probabilities(head, r).argmax(axis=-1) for r in rows]
    if labels.size != best[0].size:
        return []
    right = [(b == labels.reshape(b.shape)).mean(axis=-1) for b in best]
    return list((right[0] - right[1]).tolist())
