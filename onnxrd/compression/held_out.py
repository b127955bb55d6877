"""The damage, measured on samples that nothing was fitted to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.calibration import Batch, Calibration
from onnxrd.distortion import Head, distortion, log_probabilities, log_softmax
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime, Session

Array = NDArray[Any]
Floats = NDArray[np.float64]

BATCH = 32

TEMPERATURES = (1.0, 2.0, 4.0)

LUCK = 0.15
"""Share of the damage that another rounding of the same network may make better or worse."""

RUIN = 1e30
"""The damage where outputs are not finite."""

CONFIDENT = 0.9
"""A network whose mean confidence is above this is softened until it is not."""


@dataclass(frozen=True)
class Damage:
    """How far a changed network is from the original.

    Attributes:
        distortion: mean over the samples, summed over the heads (as `Evaluation.distortion`).
        relative: the same over the mean squared norm of the outputs, 0 where nothing differs; for
            regression alone, else NaN.
        smooth: [N], distortion of each sample at a temperature at which the network is not sure of
            everything. It says the same with far less noise, where a few samples near a decision
            make up the other.
        drop: of accuracy, as a share of the samples; None without labels.
    """

    distortion: float
    relative: float
    smooth: Floats
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

    @cached_property
    def unit(self) -> float:
        """A nat for each head of classes, and the outputs' mean squared norm for all others."""
        zeros = [
            distortion(head, output[head.output], np.zeros_like(output[head.output])).mean()
            for head in self.heads
            if head.task == "regression"
            for output in self._outputs
        ]
        classes = sum(head.task == "classification" for head in self.heads)
        return float(classes + sum(zeros) / len(self._outputs))

    def measure(self, constants: Mapping[str, Array]) -> Damage:
        """The damage of replacing constants of the prepared graph, by name."""
        changed, base = replaced(self.prepared, constants), self.model.path.parent
        session = Session(changed, base=base, runtime=self._runtime)
        samples = [
            self._compare(before, session.run(batch.feeds), batch)
            for batch, before in zip(self.data.batches(BATCH), self._outputs)
        ]
        plain, smooth, energies, drops = (np.concatenate(column) for column in zip(*samples))
        return Damage(
            float(plain.mean()),
            _relative(float(plain.mean()), energies),
            smooth,
            float(drops.mean()) if drops.size else None,
        )

    def _compare(
        self, before: Mapping[str, Array], after: Mapping[str, Array], batch: Batch
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Of each sample: distortion, the same softened, energy (regression), loss of accuracy."""
        plain, smooth = np.zeros((2, batch.size))
        energies, drops = np.zeros((2, 0))
        for head in self.heads:
            old, new = before[head.output], after[head.output]
            if head.sample_axis:
                old, new = old[: batch.size], new[: batch.size]
            plain += distortion(head, old, new)
            smooth += softened(head, old, new, self.temperature)
            if head.task == "regression":
                energy = distortion(head, old, np.zeros_like(old))
                energies = energies + energy if energies.size else energy
            elif batch.labels is not None:
                drops = np.append(drops, _drops(head, old, new, batch.labels))
        return plain, smooth, energies, drops


def _relative(distortion: float, energies: Floats) -> float:
    if not energies.size:
        return math.nan
    energy = float(energies.mean())
    if not energy:
        return math.inf if distortion else 0.0
    return distortion / energy


def best_of(damages: Sequence[Floats], bits: Sequence[float]) -> int:
    """Which one is the best at equal rate, the first unless another is clearly better.

    A bit more a weight divides damage by four. The same samples are compared, so that it is the
    differences that have to be clear: by two standard errors, and more than by what the damage
    jumps from one rounding of a network to the next.

    Args:
        damages: of each way, [N], of the same samples: `Damage.smooth`.
        bits: entropy of a weight, of each.
    """
    finite = [np.nan_to_num(damage, nan=RUIN, posinf=RUIN) for damage in damages]
    at_equal_rate = [damage * 4 ** (rate - bits[0]) for damage, rate in zip(finite, bits)]
    best, first = 0, at_equal_rate[0]
    for number, damage in enumerate(at_equal_rate):
        gain = first - damage
        clear = gain.mean() > max(2 * gain.std() / np.sqrt(len(gain)), LUCK * first.mean())
        if clear and damage.mean() < at_equal_rate[best].mean():
            best = number
    return best


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
    said = [
        log_probabilities(head, output[head.output])
        for head in heads
        if head.task == "classification"
        for output in outputs
    ]
    for temperature in TEMPERATURES[:-1]:
        sure = [np.exp(log_softmax(rows / temperature)).max(axis=-1).mean() for rows in said]
        if not sure or np.mean(sure) <= CONFIDENT:
            return temperature
    return TEMPERATURES[-1]


def _drops(head: Head, original: Array, changed: Array, labels: Array) -> Floats:
    """Of each sample, 1 if only the original is right, -1 if only the other one is."""
    best = [log_probabilities(head, rows).argmax(axis=-1) for rows in (original, changed)]
    if labels.size != best[0].size:
        return np.zeros(0)
    right = [(b == labels.reshape(b.shape)).mean(axis=-1) for b in best]
    return np.asarray(right[0] - right[1])
