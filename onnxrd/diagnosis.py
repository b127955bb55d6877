"""The golden rules as a diagnosis: what a compressed model, by whatever tool, could do better.

Rule 1 asks that no common factor would improve a layer, ŵᵀH(w − ŵ) = 0. Rule 2 asks for the least
error that the constraint allows; the constraint is read off the file: so many levels in a tensor,
or in each of its channels, so many vectors of neighbours, or so many weights that are not zero
(Gao et al. 2019, section 4).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd import quantizers
from onnxrd.graph.model import Model
from onnxrd.graph.stored import Stored, stored_weights
from onnxrd.graph.weights import find_weights
from onnxrd.importance import Importance
from onnxrd.progress import Track, silent
from onnxrd.quantizers.vectors import FEWEST, MOST

Array = NDArray[Any]

FEW_LEVELS = 256
"""A tensor with more levels may have a codebook for each channel."""

DENSE = 4
"""With fewer entries for each level there is no codebook to compare with."""

CHUNK = 1 << 20
"""Entries that are reckoned with at a time."""

SAMPLE = 1 << 12
"""Runs that tell of most weights that they have no vectors."""


@dataclass(frozen=True)
class LayerRules:
    """How one weight keeps the golden rules, under damped importance h (`Importance.damped`).

    Attributes:
        name: of the weight.
        entries: how many it has.
        constraint: what its values have in common: "16 levels", "30.0% kept", ….
        predicted: ½ Σ h (w − ŵ)² with h as measured.
        pull: ŵᵀH(w − ŵ).
        energy: ŵᵀHŵ.
        spent: ½ (w − ŵ)ᵀH(w − ŵ).
        excess: the same, less that of the best approximation under the constraint; None if there
            is no constraint.
        whole: ½ wᵀHw, of the weight itself.
    """

    name: str
    entries: int
    constraint: str
    predicted: float
    pull: float
    energy: float
    spent: float
    excess: float | None
    whole: float

    @property
    def rule1(self) -> float:
        """Residual of rule 1, pull / energy: scaling the layer by one plus it would be best."""
        return _ratio(self.pull, self.energy)

    @property
    def rule2(self) -> float | None:
        """Residual of rule 2, excess / whole; None without a constraint."""
        return None if self.excess is None else _ratio(self.excess, self.whole)


@dataclass(frozen=True)
class GoldenRules:
    """How a compressed model keeps the golden rules.

    Attributes:
        layers: every weight that is to be compressed and was found.
        missing: names of those that were not found.
    """

    layers: tuple[LayerRules, ...]
    missing: tuple[str, ...]

    @property
    def rule1(self) -> float:
        """Residual of rule 1 of all layers together."""
        return _ratio(sum(w.pull for w in self.layers), sum(w.energy for w in self.layers))

    @property
    def rule2(self) -> float:
        """Residual of rule 2 of all layers together, those without a constraint left out."""
        known = [layer for layer in self.layers if layer.excess is not None]
        return _ratio(sum(w.excess or 0 for w in known), sum(w.whole for w in known))

    @property
    def predicted(self) -> float:
        """½ Σ h (w − ŵ)² of all layers."""
        return sum(layer.predicted for layer in self.layers)

    @property
    def worst(self) -> tuple[LayerRules, LayerRules] | None:
        """Who violates rule 1 most, and who rule 2; None if nothing was found."""
        if not self.layers:
            return None
        return (
            max(self.layers, key=lambda layer: abs(layer.rule1)),
            max(self.layers, key=lambda layer: abs(layer.rule2 or 0)),
        )


def golden_rules(
    original: Model, compressed: Model, importance: Importance, *, track: Track = silent
) -> GoldenRules:
    """Hold a compressed model against the golden rules, layer by layer.

    Args:
        original: the reference.
        compressed: any version of it, see `onnxrd.graph.stored`.
        importance: of the original's weights.
        track: shows progress.

    Raises:
        ImportanceError: the importance is of another model.
        ModelError: the compressed weights cannot be computed.
    """
    importance.check_model(original)
    weights = [w for w in find_weights(original) if not w.skip]
    layers, missing = [], []
    found = stored_weights(compressed, weights)
    for stored in track(found, "golden rules", len(weights)):
        if stored.array is None:
            missing.append(stored.weight.name)
        else:
            layers.append(_layer(stored, stored.array, importance))
    return GoldenRules(tuple(layers), tuple(missing))


def _layer(stored: Stored, found: Array, importance: Importance) -> LayerRules:
    weight = stored.weight
    array = weight.array()
    array = array if array.dtype.kind == "f" else array.astype(np.float32)  # bfloat16
    h = importance.damped(weight.name, weight.shape)
    measured = importance.measured(weight.name, weight.shape)
    constraint, least = _best(array, found, h, weight.channel_axis)
    predicted, pull, energy, spent, whole = _sums(array, found, measured, h)
    excess = None if least is None else spent - least
    return LayerRules(
        weight.name, weight.size, constraint, predicted, pull, energy, spent, excess, whole
    )


def _sums(array: Array, found: Array, measured: Array, h: Array) -> Array:
    """[5]: ½ΣmΔ², Σhŵ(w−ŵ), Σhŵ², ½ΣhΔ², ½Σhw², in double precision, some entries at a time."""
    flat = [a.reshape(-1) for a in (array, found, measured, h)]
    total = np.zeros(5)
    with np.errstate(invalid="ignore", over="ignore"):  # of a file whose weights are not finite
        for start in range(0, array.size, CHUNK):
            w, v, m, c = (a[start : start + CHUNK].astype(np.float64) for a in flat)
            error = w - v
            total += (m @ error**2 / 2, c @ (v * error), c @ v**2, c @ error**2 / 2, c @ w**2 / 2)
    return total


def _best(array: Array, found: Array, h: Array, axis: int | None) -> tuple[str, float | None]:
    """What constrains an approximation, and the least distortion that is possible under it."""
    kept = found != 0
    if (found == array).all():
        return "unchanged", 0.0
    if (found[kept] == array[kept]).all():
        scores = np.sort((h * array.astype(np.float64) ** 2).ravel())
        return f"{kept.mean():.1%} kept", float(scores[: kept.size - kept.sum()].sum()) / 2
    if vectors := _vectors(found):
        best = quantizers.vector_kmeans(array, h, *vectors).dequantize()
        least = quantizers.weighted_distortion(array, best, h)
        return f"{vectors[0]} vectors of {vectors[1]}", least
    levels = len(np.unique(found))
    if levels <= FEW_LEVELS or axis is None:
        share = float(kept.mean())
        if levels * DENSE > found.size:
            return f"{levels} levels", None
        if share < 0.5:
            pruned = quantizers.prune_and_quantize(array, h, share, max(levels, 2))
            least = quantizers.weighted_distortion(array, pruned.dequantize(), h)
            return f"{levels} levels, {share:.1%} kept", least
        return f"{levels} levels", _clustered(array, h, levels)
    rows = [np.moveaxis(a, axis, 0).reshape(array.shape[axis], -1) for a in (array, found, h)]
    counts = [len(np.unique(row)) for row in rows[1]]
    text = f"{max(counts)} levels a channel"
    if max(counts) * DENSE > rows[0].shape[1]:
        return text, None
    return text, sum(_clustered(a, c, k) for a, c, k in zip(rows[0], rows[2], counts))


def _vectors(found: Array) -> tuple[int, int] | None:
    """How many vectors there are of how many entries, if that explains the levels."""
    tried = []
    for dimensions in range(FEWEST, MOST + 1):
        whole = found.reshape(-1)[: found.size // dimensions * dimensions]
        runs = whole.reshape(-1, dimensions)
        some = runs[:SAMPLE]
        if _distinct(some) < min(len(some), len(np.unique(some))):
            tried.append((_distinct(runs), dimensions))
    count, dimensions = min(tried, default=(found.size, 1))
    few = 1 < count < len(np.unique(found)) and count * dimensions * DENSE <= found.size
    return (count, dimensions) if few else None


def _distinct(runs: Array) -> int:
    return len(np.unique(runs, axis=0))


def _clustered(array: Array, h: Array, levels: int) -> float:
    if levels == 1:
        mean = np.average(array.astype(np.float64), weights=h if h.any() else None)
        return quantizers.weighted_distortion(array, np.full(array.shape, mean), h)
    return quantizers.weighted_distortion(
        array, quantizers.weighted_kmeans(array, h, levels).dequantize(), h
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
