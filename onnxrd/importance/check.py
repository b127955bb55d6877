"""Finite differences as a referee of autodiff: do the two agree on weights picked at random?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxrd.calibration import Calibration
from onnxrd.distortion import Tasks
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime
from onnxrd.importance.diagonal import fisher
from onnxrd.importance.differences import Differences, Region
from onnxrd.importance.estimators import Estimator
from onnxrd.progress import Track, silent

SAMPLES = 32
"""On so many samples, for both."""

COORDINATES = 16
"""Entries of each weight that are looked at."""

NEGLIGIBLE = 0.01
"""Of a tensor's mean importance: differences are measured against no less."""

AGREE = 0.05
"""Largest median relative difference of a weight that counts as agreement."""


@dataclass(frozen=True)
class Agreement:
    """Autodiff against finite differences, on some entries of a weight.

    Attributes:
        name: of the weight.
        entries: how many were looked at.
        median: of their relative differences.
        largest: of these.
        ratio: of the sums over these entries, finite differences to autodiff; NaN for 0 to 0.
        why_not: why there is nothing to compare: the operator without a derivative; else empty.
    """

    name: str
    entries: int
    median: float = float("nan")
    largest: float = float("nan")
    ratio: float = float("nan")
    why_not: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the two say the same, or there is nothing to compare."""
        return bool(self.why_not) or self.median <= AGREE


def check(
    model: Model,
    data: Calibration,
    *,
    estimator: Estimator | None = None,
    task: Tasks = None,
    runtime: Runtime = DEFAULT,
    track: Track = silent,
) -> tuple[Agreement, ...]:
    """Compare autodiff with finite differences on random entries of every weight.

    Args:
        model: the network.
        data: calibration samples, of which some are taken.
        estimator: both draw the same cotangents from it.
        task: overrides what the graph's end says.
        runtime: threads and provider.
        track: shows progress.

    Raises:
        ImportanceError: outputs or gradients are not finite.
        CalibrationError: the data do not fit.
    """
    estimator, some = estimator or Estimator(), data.spread(SAMPLES)
    h = fisher(model, some, estimator=estimator, task=task, runtime=runtime, track=track)
    differences = Differences(model, some, estimator, task, runtime)
    rng = np.random.default_rng(estimator.seed)
    found = []
    for weight in track(differences.weights.values(), "checking", len(differences.weights)):
        name = weight.name
        if why_not := h.fallbacks.get(name) or h.proxies.get(name):
            found.append(Agreement(name, 0, why_not=why_not))
            continue
        flats = rng.permutation(weight.size)[:COORDINATES]
        regions: list[Region] = [tuple(np.unravel_index(k, weight.shape)) for k in flats]
        totals = dict.fromkeys(regions, 0.0)
        for region, square in differences.squares(weight, regions, 1, some):
            totals[region] += square / some.samples
        exact = h.values[name].reshape(-1)[flats].astype(np.float64)
        floor = NEGLIGIBLE * float(h.values[name].mean(dtype=np.float64))
        found.append(_compared(name, exact, np.array(list(totals.values())), floor))
    return tuple(found)


def _compared(
    name: str, exact: NDArray[np.float64], found: NDArray[np.float64], floor: float
) -> Agreement:
    scale = np.maximum(np.maximum(exact, found), floor)
    apart = np.divide(np.abs(exact - found), scale, out=np.zeros_like(scale), where=scale > 0)
    ratio = found.sum() / exact.sum() if exact.sum() > 0 else np.inf if found.any() else np.nan
    return Agreement(name, len(exact), float(np.median(apart)), float(apart.max()), float(ratio))
