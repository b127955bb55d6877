"""A quantized network, and the tricks by which it became one."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.encodings.entropy.estimate import entropy
from onnxrd.quantizers import Codebook, Quantized, Stacked, Trellis

Array = NDArray[Any]


@dataclass(frozen=True)
class Method:
    """Which of the tricks to use; measurement decides.

    Attributes:
        repair: aim at what makes good the damage that the layers before have done.
        bias: take moments about the means and fold what changes in the mean into the bias.
        directions: feed errors back to directions of the outputs that matter less, too.
        trellis: quantize on trellises what has rows enough, the rest on grids.
    """

    repair: bool = True
    bias: bool = True
    directions: bool = False
    trellis: bool = False


@dataclass
class Quantization:
    """A quantized network.

    Attributes:
        steps: step of a grid, of each weight, or of each set of its rows.
        weights: weight → what became of it.
        biases: constants that change with the weights, by name.
    """

    steps: dict[str, float]
    weights: dict[str, Quantized] = field(default_factory=dict)
    biases: dict[str, Array] = field(default_factory=dict)

    @property
    def bits(self) -> float:
        """Entropy of a weight under a code of its tensor or part, mean over all weights, bits."""
        total, size = 0.0, 0
        for quantized in self.weights.values():
            for part in quantized.parts if isinstance(quantized, Stacked) else [quantized]:
                assert isinstance(part, Codebook | Trellis)
                counts = np.unique(part.codes, return_counts=True)[1]
                total += float(entropy(counts))
                size += part.codes.size
        return total / size

    def constants(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """What weights and biases hold instead of their own values, by name; all by default."""
        wanted = [*self.weights, *self.biases] if names is None else names
        return {
            name: self.weights[name].dequantize() if name in self.weights else self.biases[name]
            for name in wanted
            if name in self.weights or name in self.biases
        }
