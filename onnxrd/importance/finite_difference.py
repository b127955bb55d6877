"""Diagonal Fisher information by finite differences: forward passes only, on any graph that runs.

Per weight where a tensor is small. A large one would take too long: there, random directions v ∈
{±1}^G within a group G of weights (a channel) give the sum of the group's importance, because

    E_v[(g·v)²] = Σ_{i∈G} g_i²,

and each weight of the group gets an equal share. To be slow and right is what this is for: it needs
no rule of any operator, so it serves where autodiff has none, and as a referee of autodiff.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from onnxrd.calibration import Calibration
from onnxrd.distortion import Task
from onnxrd.errors import ImportanceError, SettingError
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime
from onnxrd.graph.weights import Weight
from onnxrd.importance.differences import Differences, Region
from onnxrd.importance.estimators import Estimator
from onnxrd.importance.importance import Importance
from onnxrd.progress import Track, silent

MOST_CHANNELS = 1024
"""A weight with more channels is one group."""


def finite_difference(
    model: Model,
    data: Calibration,
    *,
    estimator: Estimator | None = None,
    task: Task | None = None,
    names: Sequence[str] | None = None,
    exact_up_to: int = 1024,
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
    weights = _choose(differences.weights, names)
    kinds = {w.name: _group(w, exact_up_to) for w in weights}
    plan = [(w, _regions(w, kinds[w.name]), directions if kinds[w.name] else 1) for w in weights]
    totals = {w.name: np.zeros(w.shape) for w in weights}

    def squares() -> Iterator[tuple[str, Region, float]]:
        for weight, regions, count in plan:
            for region, square in differences.squares(weight, regions, count):
                yield weight.name, region, square / count

    runs = sum(len(regions) * count for _, regions, count in plan) * differences.batches
    for name, region, square in track(squares(), "finite differences", runs):
        totals[name][region] += square / np.size(totals[name][region])
    return Importance(
        {name: (total / data.samples).astype(np.float32) for name, total in totals.items()},
        model.digest,
        task="+".join(sorted({head.task for head in differences.heads})),
        estimator=estimator.kind,
        probes=estimator.probes,
        temperature=estimator.temperature,
        samples=data.samples,
        seed=estimator.seed,
        path=f"batches of {differences.size}",
        method="finite-difference",
        grouped={name: kind for name, kind in kinds.items() if kind},
    )


def _choose(weights: Mapping[str, Weight], names: Sequence[str] | None) -> list[Weight]:
    if not weights:
        raise ImportanceError("the model has no weights to compress.")
    for name in names or ():
        if name not in weights:
            raise SettingError(f"no weight {name!r} to compress; see `onnxrd inspect`.")
    return [w for name, w in weights.items() if names is None or name in names]


def _group(weight: Weight, exact_up_to: int) -> str:
    """Which entries are measured together: "channel", "tensor", or "" for each on its own."""
    if weight.size <= exact_up_to:
        return ""
    axis = weight.channel_axis
    return "tensor" if axis is None or weight.shape[axis] > MOST_CHANNELS else "channel"


def _regions(weight: Weight, group: str) -> list[Region]:
    if group == "tensor":
        return [()]
    if group == "channel":
        assert weight.channel_axis is not None
        before = (slice(None),) * weight.channel_axis
        return [(*before, k) for k in range(weight.shape[weight.channel_axis])]
    return list(np.ndindex(weight.shape))
