"""Quantize a network from its beginning to its end, each layer behind the quantized ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.compression.network import Layer, Network
from onnxrd.graph.weights import Weight
from onnxrd.importance.moments import Moments
from onnxrd.progress import Track, silent
from onnxrd.quantizers import Codebook
from onnxrd.quantizers.feedback import SecondMoment, error_feedback, repaired_target
from onnxrd.quantizers.grid import Integers, grid_codebook, round_to_grid

Array = NDArray[Any]
Taps = Sequence[Mapping[str, Array]]

KEPT = 5 << 28
"""Bytes that the inputs of all layers may take so that they are kept from one time to the next."""


@dataclass(frozen=True)
class Method:
    """Which of the tricks to use; measurement decides.

    Attributes:
        repair: aim at what makes good the damage that the layers before have done.
        bias: take moments about the means and fold what changes in the mean into the bias.
        directions: feed errors back to directions of the outputs that matter less, too.
    """

    repair: bool = True
    bias: bool = True
    directions: bool = False


@dataclass
class Quantization:
    """A quantized network.

    Attributes:
        steps: weight → step.
        integers: weight → [*weight], multiples of its step.
        dtypes: weight → its type.
        biases: constants that change with the weights, by name.
    """

    steps: dict[str, float]
    integers: dict[str, Integers] = field(default_factory=dict)
    dtypes: dict[str, np.dtype[Any]] = field(default_factory=dict)
    biases: dict[str, Array] = field(default_factory=dict)

    def add(self, weight: Weight, integers: Integers) -> None:
        """Note what becomes of a weight."""
        self.integers[weight.name], self.dtypes[weight.name] = integers, weight.dtype

    def codebook(self, name: str) -> Codebook:
        """A quantized weight."""
        return grid_codebook(self.integers[name], self.steps[name], self.dtypes[name])

    @property
    def bits(self) -> float:
        """Entropy of a weight under a code of its tensor, mean over all weights, bits."""
        total, size = 0.0, 0
        for integers in self.integers.values():
            _, counts = np.unique(integers, return_counts=True)
            total -= float(np.sum(counts * np.log2(counts / integers.size)))
            size += integers.size
        return total / size

    def constants(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """What weights and biases hold instead of their own values, by name; all by default."""
        wanted = [*self.integers, *self.biases] if names is None else names
        return {
            name: self.codebook(name).dequantize() if name in self.integers else self.biases[name]
            for name in wanted
            if name in self.integers or name in self.biases
        }


class Sequential:
    """Quantizes one network again and again, with other steps each time.

    Args:
        network: the network.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        sizes = [layer.most_positions * _inputs(layer) for layer in network.layers]
        self._keeps = 4 * sum(sizes) <= KEPT
        self._kept: dict[int, list[Array]] = {}

    def quantize(
        self, steps: Mapping[str, float], method: Method, track: Track = silent
    ) -> Quantization:
        """Quantize all weights, layer by layer.

        Args:
            steps: weight → step of its grid.
            method: which tricks to use.
            track: shows progress.
        """
        network, done = self.network, Quantization(steps=dict(steps))
        for weight in network.loose:
            scales = network.scales.get(weight.name)
            done.add(weight, round_to_grid(weight.array(), steps[weight.name], scales))
        changed = done.constants()
        walked = len(self._kept) == len(network.layers)
        original = None if walked else network.walk()
        behind = network.walk() if method.repair else None
        for wave in track(network.waves, "error feedback", len(network.waves)):
            taps = original.advance({}) if original else None
            damaged = behind.advance(changed) if behind else None
            for layer in wave:
                moments = self._moments(layer, taps, damaged)
                quantize_layer(network, layer, moments, method, done)
                changed |= done.constants([layer.weight.name, layer.form.bias])
        return done

    def _moments(self, layer: Layer, taps: Taps | None, damaged: Taps | None) -> Moments:
        inputs = self._kept.get(layer.number)
        if inputs is None:
            assert taps is not None
            inputs = self.network.columns(layer, taps)
            if self._keeps:
                self._kept[layer.number] = inputs
        others = self.network.columns(layer, damaged) if damaged else None
        return gathered(layer, inputs, others)


def _inputs(layer: Layer) -> int:
    """Numbers in the inputs of a layer at one position."""
    groups, _, columns = layer.form.index.shape
    return int(groups * columns)


def gathered(layer: Layer, inputs: Sequence[Array], others: Sequence[Array] | None) -> Moments:
    """Moments of a layer's inputs, in the original network and maybe in another."""
    groups, _, columns = layer.form.index.shape
    moments = Moments(groups, columns)
    for number, x in enumerate(inputs):
        moments.add(x, others[number] if others else None)
    return moments


def quantize_layer(
    network: Network, layer: Layer, moments: Moments, method: Method, done: Quantization
) -> None:
    """Quantize one layer, given the moments of its inputs; adds to what is done."""
    form, weight, step = layer.form, layer.weight, done.steps[layer.weight.name]
    centred = method.bias and bool(form.bias)
    second, cross = moments.second(centred=centred)
    matrices = form.matrices(weight.array()).astype(np.float64)
    inputs = SecondMoment.of(second, moments.count)
    target = repaired_target(matrices, inputs, cross) if method.repair else matrices
    known = network.directions if method.directions else None
    outputs = known.get(layer.number) if known else None
    integers = error_feedback(target, inputs, step, outputs)
    done.add(weight, form.weight(integers, weight.shape))
    if centred:
        x, xq = moments.means()
        moved = np.einsum("grk,gk->gr", matrices, x)
        moved -= np.einsum("grk,gk->gr", integers * step, xq)
        bias = network.constant(form.bias)
        done.biases[form.bias] = (bias + moved.reshape(bias.shape)).astype(bias.dtype)
