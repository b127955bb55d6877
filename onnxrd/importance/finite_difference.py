"""Diagonal Fisher information by finite differences: forward passes only, on any graph that runs.

Per weight where a tensor is small. A large one would take too long: there, random directions v ∈
{±1}^G within a group G of weights (a channel) give the sum of the group's importance, because

    E_v[(g·v)²] = Σ_{i∈G} g_i²,

and each weight of the group gets an equal share. To be slow and right is what this is for: it needs
no rule of any operator, so it serves where autodiff has none, and as a referee of autodiff.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxrd.calibration import Calibration
from onnxrd.distortion import Tasks
from onnxrd.errors import ImportanceError, ModelError, SettingError
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime
from onnxrd.graph.weights import Weight
from onnxrd.importance.differences import Differences, Region
from onnxrd.importance.estimators import Estimator
from onnxrd.importance.importance import Importance
from onnxrd.progress import Track, silent

Group = Literal["", "channel", "tensor"]
"""Which entries are measured together; "" for each on its own."""

EXACT_UP_TO = 1024
"""Entries up to which a weight is measured entry by entry."""

MOST_CHANNELS = 1024
"""A weight with more channels is one group."""

FALLBACK_PAIRS = 8
"""Pairs of forward passes over all samples that a fallback may take, for all its weights."""

FALLBACK_FREE = 4096
"""Pairs of forward passes of one sample that it may take in any case."""

FEWEST_SAMPLES = 16
"""So many must be left for a group to be worth measuring on its own."""


@dataclass(frozen=True, eq=False)
class Part:
    """How one weight is measured: on how many samples, how many directions for each group."""

    weight: Weight
    group: Group
    directions: int
    samples: int

    @property
    def regions(self) -> list[Region]:
        """The groups, as indices into the weight."""
        if self.group == "tensor":
            return [()]
        if self.group == "channel":
            axis = self.weight.channel_axis or 0
            before = (slice(None),) * axis
            return [(*before, k) for k in range(self.weight.shape[axis])]
        return list(np.ndindex(self.weight.shape))


def finite_difference(
    model: Model,
    data: Calibration,
    *,
    estimator: Estimator | None = None,
    task: Tasks = None,
    names: Sequence[str] | None = None,
    exact_up_to: int = EXACT_UP_TO,
    directions: int = 2,
    runtime: Runtime = DEFAULT,
    track: Track = silent,
) -> Importance:
    """Importance as `fisher` defines it, found without a derivative of any operator.

    It takes 2 forward passes of what lies behind a weight, for each of its entries (or for each of
    its channels and directions). An exact sum over classes costs no more of them than a probe.

    Args:
        model: the network.
        data: calibration samples; labels are not used.
        estimator: of the sum over classes or outputs; one Rademacher probe a sample by default.
        task: overrides what the graph's end says.
        names: of the weights to measure; None for all that are to be compressed.
        exact_up_to: entries up to which a weight is measured entry by entry.
        directions: for each group of a larger weight, new ones for each batch of samples.
        runtime: threads and provider.
        track: shows progress.

    Raises:
        ImportanceError: nothing to measure, or outputs that are not finite.
        SettingError: no such weight, or a setting makes no sense.
        CalibrationError: the data do not fit.
    """
    if directions < 1:
        raise SettingError(f"{directions} directions are too few: take 1 or more.")
    estimator = estimator or Estimator()
    differences = Differences(model, data, estimator, task, runtime)
    plan = []
    for weight in _choose(differences.weights, names):
        group = "" if weight.size <= exact_up_to else _coarse(weight)
        plan.append(Part(weight, group, directions if group else 1, data.samples))
    return Importance(
        _measure(differences, plan, track),
        model.digest,
        task="+".join(sorted({head.task for head in differences.heads})),
        estimator=estimator.kind,
        probes=estimator.probes,
        temperature=estimator.temperature,
        samples=data.samples,
        seed=estimator.seed,
        path=f"batches of {differences.size}",
        method="finite-difference",
        grouped={part.weight.name: part.group for part in plan if part.group},
    )


def fallback_plan(weights: Sequence[Weight], samples: int) -> list[Part]:
    """How finely weights without a derivative can be measured at a bounded price.

    Entry by entry, by channel, or as a whole, whatever their share of the forward passes allows on
    `FEWEST_SAMPLES`, and then on as many samples as it allows. Some may get nothing at all.
    """
    share = max(FALLBACK_PAIRS * samples, FALLBACK_FREE) // max(len(weights), 1)
    plan = []
    for weight in weights:
        groups: list[Group] = ["", _coarse(weight), "tensor"]
        for part in (Part(weight, group, 1, 0) for group in groups):
            count = len(part.regions) if part.group else weight.size
            if count * min(FEWEST_SAMPLES, samples) <= share:
                plan.append(Part(weight, part.group, 1, min(samples, share // count)))
                break
    return plan


def fallback(
    differences: Differences, names: Sequence[str], track: Track = silent
) -> tuple[dict[str, NDArray[np.float32]], dict[str, str], dict[str, str]]:
    """Importance of weights without a derivative, at a bounded price.

    Args:
        differences: of the network, on all samples.
        names: of these weights.
        track: shows progress.

    Returns:
        values: name → [*weight].
        groups: name → "channel", "tensor", or "" for each entry on its own; for the same weights.
        failed: name → why it could not be measured, for the others.
    """
    plan = fallback_plan([differences.weights[name] for name in names], differences.data.samples)
    failed = dict.fromkeys(names, "finite differences would take too long")
    for part in plan:
        del failed[part.weight.name]
    values = _measure(differences, plan, track, failed)
    groups = {p.weight.name: p.group for p in plan if p.weight.name in values}
    return values, dict(groups), failed


def _measure(
    differences: Differences,
    plan: Sequence[Part],
    track: Track,
    failed: dict[str, str] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Mean squared slopes of all entries; what fails is noted in `failed`, or raised without it."""
    totals = {part.weight.name: np.zeros(part.weight.shape) for part in plan}

    def squares() -> Iterator[tuple[str, Region, float]]:
        for part in plan:
            name, some = part.weight.name, differences.data.spread(part.samples)
            found = differences.squares(part.weight, part.regions, part.directions, some)
            try:
                for region, square in found:
                    yield name, region, square / (part.directions * part.samples)
            except (ImportanceError, ModelError) as error:
                if failed is None:
                    raise
                failed[name] = f"finite differences fail: {error}"

    runs = sum(len(p.regions) * p.directions * differences.batches(p.samples) for p in plan)
    for name, region, square in track(squares(), "finite differences", runs):
        totals[name][region] += square / np.size(totals[name][region])
    left = {name: total for name, total in totals.items() if name not in (failed or ())}
    return {name: total.astype(np.float32) for name, total in left.items()}


def _choose(weights: Mapping[str, Weight], names: Sequence[str] | None) -> list[Weight]:
    if not weights:
        raise ImportanceError("the model has no weights to compress.")
    for name in names or ():
        if name not in weights:
            raise SettingError(f"no weight {name!r} to compress; see `onnxrd inspect`.")
    return [w for name, w in weights.items() if names is None or name in names]


def _coarse(weight: Weight) -> Group:
    """The groups of a weight that is too large to be measured entry by entry."""
    axis = weight.channel_axis
    return "tensor" if axis is None or weight.shape[axis] > MOST_CHANNELS else "channel"
