"""Simpler methods than `onnxrd.compress`, to be drawn beside it: one setting for all layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from onnxrd import bounds
from onnxrd.errors import ImportanceError
from onnxrd.graph.model import Model
from onnxrd.graph.weights import Weight
from onnxrd.importance import Importance, identity
from onnxrd.measurement import Codebooks
from onnxrd.quantizers import Quantized
from onnxrd.quantizers.grid import grid_codebook, round_to_grid
from onnxrd.report.curve import CurvePoint

CLUSTERS = (64, 32, 16, 8, 4)
BITS = (8, 6, 5, 4, 3)

Quantize = Callable[[Sequence[Weight]], Iterator[Quantized]]


@dataclass(frozen=True)
class Rival:
    """A method with one setting for all layers.

    Attributes:
        name: in one word.
        title: for people.
        settings: in words → what quantizes all weights, from little damage to much.
    """

    name: str
    title: str
    settings: Mapping[str, Quantize]


def rivals(model: Model, importance: Importance) -> list[Rival]:
    """The paper's method, its baseline, and rounding."""

    def k_means(name: str, title: str, h: Importance) -> Rival:
        settings = {f"{k} clusters": partial(Codebooks(k), h=h) for k in CLUSTERS}
        return Rival(name, title, settings)

    rounding = {f"{bits} bits": partial(rounded, bits=bits) for bits in BITS}
    found = [
        k_means("k-means", "k-means, all weights alike (the paper's baseline)", identity(model)),
        Rival("rounding", "rounding to nearest, one range a layer", rounding),
    ]
    if importance.objective != "identity":
        found.insert(
            0, k_means("weighted", "k-means weighted by importance (the paper)", importance)
        )
    return found


def rounded(weights: Sequence[Weight], bits: int) -> Iterator[Quantized]:
    """Every weight as the nearest of 2^bits - 1 levels from -max |w| to max |w| of its tensor."""
    for weight in weights:
        array = weight.array()
        largest = float(np.abs(array).max(initial=0)) or 1.0
        step = largest / (2 ** (bits - 1) - 1)
        yield grid_codebook(round_to_grid(array, step), step, weight.dtype)


def shannon_bound(
    model: Model, importance: Importance, weights: Sequence[Weight], measured: CurvePoint
) -> tuple[tuple[float, float], ...]:
    """(damage, bytes) of the bound, with all in the file that is no weight to compress.

    Args:
        model: the original.
        importance: as it was measured.
        weights: those that are compressed.
        measured: any file, for the unit of damage.

    Raises:
        ImportanceError: importance does not predict the damage that is measured.
    """
    tasks = {head.task for head in measured.evaluation.heads}
    if not importance.in_nats or set(importance.task.split("+")) != tasks:
        raise ImportanceError(f"{importance.objective!r} does not predict the damage.")
    if importance.temperature != 1:
        raise ImportanceError("at another temperature than 1 importance predicts another damage.")
    whole = measured.evaluation.distortion
    unit = measured.damage / whole if whole else 1.0
    rest = model.nbytes - sum(weight.size * weight.dtype.itemsize for weight in weights)
    entries = sum(weight.size for weight in weights)
    distortion, bits = bounds.bound(model, importance, weights=weights).curves[-1].tolist()
    return tuple((unit * d, max(rest, 0) + entries * b / 8) for d, b in zip(distortion, bits))
