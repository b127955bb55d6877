"""Quantize a network from its beginning to its end, each layer behind the quantized ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from onnxrd.compression.layers import gathered, quantize_layer, quantize_loose
from onnxrd.compression.network import Layer, Network
from onnxrd.compression.quantization import Method, Quantization
from onnxrd.importance.moments import Moments
from onnxrd.progress import Track, silent

Array = NDArray[Any]
Taps = Sequence[Mapping[str, Array]]

KEPT = 5 << 28
"""Bytes that the inputs of all layers may take so that they are kept from one time to the next."""

LARGE = 2048
"""Columns of a layer from which on its products may have more than one thread: these spin for a
while before they sleep, and take the cores from what comes next. Below it that cost more than it
gave on ResNet-20 and EfficientNet, whose layers have up to 1280; above it was not measured."""


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
            steps: of the grids, of each weight, or of each set of its rows.
            method: which tricks to use.
            track: shows progress.
        """
        network, done = self.network, Quantization(steps=dict(steps))
        for weight in network.loose:
            quantize_loose(network, weight, method, done)
        changed = done.constants()
        walked = len(self._kept) == len(network.layers)
        original = None if walked else network.walk()
        behind = network.walk() if method.repair else None
        for wave in track(network.waves, "error feedback", len(network.waves)):
            taps = original.advance({}) if original else None
            damaged = behind.advance(changed) if behind else None
            for layer in wave:
                with threadpool_limits(None if layer.columns >= LARGE else 1, user_api="blas"):
                    folds = self._moments(layer, taps, damaged)
                    quantize_layer(network, layer, folds, method, done)
                changed |= done.constants([layer.weight.name, layer.form.bias])
        return done

    def _moments(self, layer: Layer, taps: Taps | None, damaged: Taps | None) -> list[Moments]:
        inputs = self._kept.get(layer.number)
        if inputs is None:
            assert taps is not None
            inputs = self.network.columns(layer, taps)
            if self._keeps:
                self._kept[layer.number] = inputs
        others = self.network.columns(layer, damaged) if damaged else None
        if others and not all(np.isfinite(x).all() for x in others):
            others = None  # as where a weight of zeros is divided by its norm
        return gathered(layer, self.network.samples, inputs, others)


def _inputs(layer: Layer) -> int:
    """Numbers in the inputs of a layer at one position."""
    groups, _, columns = layer.form.index.shape
    return int(groups * columns)
