"""What a squared error in a weight of each tensor costs once error feedback has done its work.

Diagonal importance knows nothing of what feedback makes good, which differs a hundredfold from
layer to layer. So each tensor is quantized alone and the damage at the network's outputs measured;
importance only says how coarsely to quantize for that.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.compression.held_out import softened, softening
from onnxrd.compression.layers import gathered, quantize_layer, quantize_loose
from onnxrd.compression.network import Network
from onnxrd.compression.quantization import Method, Quantization
from onnxrd.graph.session import Session
from onnxrd.graph.stages import Walk, extract, ready
from onnxrd.progress import Track, silent

Array = NDArray[Any]

TRUST = 0.75
"""Exponent of the measured correction: noise in it would otherwise be taken for sensitivity."""

RUINED = 10.0
"""Times the largest finite damage where outputs are not finite."""

ALONE = Method(repair=False)
"""How each tensor is quantized for that."""


def measured_curvature(
    network: Network,
    steps: Mapping[str, float],
    predicted: Mapping[str, float],
    track: Track = silent,
) -> dict[str, float]:
    """What to multiply the curvature of each tensor with.

    Args:
        network: with the samples to measure on.
        steps: of the size that is going to be used, of each weight, or of each set of its rows.
        predicted: weight → distortion that rounding with these steps is expected to cause.
        track: shows progress.

    Returns: factors; distortion is then that at the temperature of `softening`. All are 1 where no
        damage is measured or none predicted.
    """
    found = track(_damages(network, steps), "sensitivity", len(network.weights))
    measured = dict(found)
    worst = max((d for d in measured.values() if math.isfinite(d)), default=0.0)
    measured = {n: d if math.isfinite(d) else RUINED * worst for n, d in measured.items()}
    total, expected = sum(measured.values()), sum(predicted.values())
    if not total or not expected:
        return dict.fromkeys(measured, 1.0)
    scale, floor = total / expected, 1e-4 * total / len(measured)
    ratios = {
        name: max(damage, floor) / (scale * predicted[name]) if predicted[name] else 1.0
        for name, damage in measured.items()
    }
    return {name: scale * ratio**TRUST for name, ratio in ratios.items()}


def _damages(network: Network, steps: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Weight → mean distortion with this weight quantized and all others as they were."""
    walk, outputs = network.walk(), _outputs(network)
    temperature = softening(tuple(network.heads), outputs)
    for weight in network.loose:
        alone = Quantization(dict(steps))
        quantize_loose(network, weight, ALONE, alone)
        yield weight.name, _damage(network, None, alone, outputs, temperature)
    for wave in network.waves:
        taps = walk.advance({})
        for layer in wave:
            alone = Quantization(dict(steps))
            inputs = network.columns(layer, taps)[::2]
            folds = gathered(layer, network.samples[::2], inputs, None)
            quantize_layer(network, layer, folds, ALONE, alone)
            yield layer.weight.name, _damage(network, walk, alone, outputs, temperature)


def _outputs(network: Network) -> list[dict[str, Array]]:
    session = Session(network.prepared, base=network.base, runtime=network.runtime)
    return [session.run(feeds) for feeds in network.batches]


def _damage(
    network: Network,
    walk: Walk | None,
    alone: Quantization,
    outputs: list[dict[str, Array]],
    temperature: float,
) -> float:
    """Run what is left of the network from where the walk is, with some constants changed."""
    starts = walk.alive if walk else network.batches
    if len(starts) > 1:  # not on those that the errors were fed back for
        starts, outputs = starts[1::2], outputs[1::2]
    main = {v.name: v for node in network.prepared.graph for v in node.outputs}
    main |= {v.name: v for v in network.prepared.graph.inputs}
    heads = [main[head.output] for head in network.heads]
    rest = extract(network.prepared, [main[name] for name in starts[0]], heads)
    model = ready(rest, alone.constants(), starts[0])
    session = Session(model, base=network.base, runtime=network.runtime)
    total = []
    for start, before in zip(starts, outputs):
        after = session.run(start)
        of_heads = [
            softened(h, before[h.output], after[h.output], temperature) for h in network.heads
        ]
        total += np.sum(of_heads, axis=0).tolist()
    return float(np.mean(total))
