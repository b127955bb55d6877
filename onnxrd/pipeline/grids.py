"""Entropy-coded grids for so many bits a weight, guided by importance alone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from onnxrd.allocation.ladder import ladder, slope_for_bits
from onnxrd.allocation.search import search
from onnxrd.encodings import ENTROPY_OPSET
from onnxrd.encodings.entropy.estimate import entropy
from onnxrd.errors import SettingError
from onnxrd.graph.weights import Weight
from onnxrd.importance import Importance
from onnxrd.quantizers import Codebook, Quantized, Trellis, on_grid, on_trellis, thinned
from onnxrd.quantizers.quantized import Array

WITHIN, TOLERABLE = 0.003, 0.05
"""Shares of the bits by which an average below them is near enough, or will do."""

COARSER = (1.0, 1.6, 2.5, 4.0, 6.3)
"""What to try in turn, see `on_grid`."""


class Method(Protocol):
    """`on_grid` or `on_trellis`."""

    def __call__(
        self, weight: Array, importance: Array, slope: float, *, coarser: float
    ) -> Quantized:
        """A weight at a slope."""


@dataclass(frozen=True)
class Grids:
    """Quantizes at the one slope for all tensors at which they take so many bits on average.

    Attributes:
        bits: a weight, at most, by the entropy of each tensor's codes.
        trellis: on a trellis.

    Raises:
        SettingError: bits are out of range.
    """

    bits: float
    trellis: bool

    def __post_init__(self) -> None:
        if not 0.05 <= self.bits <= 7:
            raise SettingError(f"{self.bits:g} bits a weight: take 0.05 or more, and 7 at most.")

    def __call__(self, weights: Sequence[Weight], h: Importance) -> Iterator[Quantized]:
        """The weights, in turn.

        Raises:
            SettingError: the importance or the opset is not for this.
        """
        if h.quartic:
            raise SettingError("gradient+hessian is an objective for codebooks: leave out --bits.")
        opset = _opset(weights[0])
        if self.trellis and opset < ENTROPY_OPSET:
            raise SettingError(
                f"a trellis takes opset {ENTROPY_OPSET} to decode, the model has {opset}. Convert "
                "it first, by onnx.version_converter.convert_version(model, 17), say."
            )
        method: Method = on_trellis if self.trellis else on_grid
        slope, coarser = _slope(weights, h, self.bits, method)
        for weight in weights:
            cost = h.damped(weight.name, weight.shape)
            yield method(weight.array(), cost, slope, coarser=coarser)


def _opset(weight: Weight) -> int:
    graph = weight.value.graph
    assert graph is not None
    return graph.opset_imports.get("", graph.opset_imports.get("ai.onnx", 1))


def _slope(
    weights: Sequence[Weight], h: Importance, bits: float, method: Method
) -> tuple[float, float]:
    """What a bit has to be worth, in the unit of the distortion, and how much coarser steps are.

    Found on samples of the tensors.
    """
    samples = [thinned(w.array(), h.damped(w.name, w.shape)) for w in weights]
    shares = np.array([w.size for w in weights]) / sum(w.size for w in weights)
    ladders = [
        replace(ladder(array, float(cost.mean(dtype=np.float64))), size=weight.size)
        for weight, (array, cost) in zip(weights, samples)
    ]
    bounds = slope_for_bits(ladders, 9.0), slope_for_bits(ladders, 0.001)
    start = slope_for_bits(ladders, bits)
    best: tuple[float, float, float] = (0.0, bounds[1], COARSER[-1])
    for coarser in COARSER:

        def attempt(slope: float, coarser: float = coarser) -> tuple[float, None]:
            taken = [_bits(method(*sample, slope, coarser=coarser)) for sample in samples]
            return float(shares @ taken), None

        trials = search(attempt, start, bits, rising=False, within=WITHIN, bounds=bounds)
        kept = [(t.value, math.exp(t.position), coarser) for t in trials if t.value <= bits]
        best = max(best, *kept)
        if best[0] > bits * (1 - TOLERABLE):
            break
    return best[1:]


def _bits(quantized: Quantized) -> float:
    """Entropy of the codes, bits a weight."""
    assert isinstance(quantized, Codebook | Trellis)
    counts = np.unique(quantized.codes, return_counts=True)[1]
    return float(entropy(counts)) / max(quantized.codes.size, 1)
