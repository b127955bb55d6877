"""Which directions of a layer's output matter: second moments of the cotangents there.

Damage is about ½ E (gᵀ δ)², δ being what changes at the output of a layer and g a random cotangent
whose second moment is the Fisher information of that output. Errors along directions that the rest
of the network hardly looks at cost next to nothing, and error feedback can move them there.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.autodiff.gradients import Gradients
from onnxrd.compression.network import Layer, Network
from onnxrd.importance.batching import batch_size, masked, padded
from onnxrd.importance.estimators import Estimator
from onnxrd.progress import Track, silent
from onnxrd.quantizers.feedback import SecondMoment

Floats = NDArray[np.float64]

SAMPLES = 256

DRAWS = 4
"""How many independent draws a sample counts as: cotangents at its positions are alike."""

WIDEST = 4096
"""Outputs of more rows, such as the words of a vocabulary, are taken as all alike."""


def directions(
    network: Network, temperature: float = 1.0, track: Track = silent
) -> dict[int, SecondMoment]:
    """Directions of the outputs of layers by number; of those that have a derivative.

    Args:
        network: with the samples to take.
        temperature: of the softmax of classification heads.
        track: shows progress.
    """
    layers = {layer.form.output: layer for layer in network.layers if _is_wanted(layer)}
    data = network.data.subset(range(min(SAMPLES, network.data.samples)))
    first = next(iter(data.batches(1))).feeds
    sources = [head.source for head in network.heads]

    def gradients(names: Iterable[str]) -> Gradients:
        axes = {name: layers[name].form.axis for name in names}
        return Gradients(
            network.prepared, network.base, sources, list(axes), axes=axes, runtime=network.runtime
        )

    if not layers:
        return {}
    every = gradients(layers)
    blocked, size = every.blocked(first), batch_size(every.trace(first))
    names = [name for name in layers if name not in blocked]
    if not names:
        return {}
    size = next((n for spec in network.model.inputs if (n := spec.fixed_batch)), size)
    size = min(size, data.samples) if data.sample_axis else 1
    run, done = gradients(names), 0
    totals: dict[str, Any] = dict.fromkeys(names, 0.0)
    for batch in track(data.batches(size), "directions", -(-data.samples // size)):
        forward = run.forward("second moment", padded(batch, size).feeds)
        for seeds in Estimator(temperature=temperature).seeds(network.heads, forward.sources, done):
            if data.sample_axis:
                seeds = {name: masked(seed, batch.size) for name, seed in seeds.items()}
            for name, product in run.backward(forward, seeds).items():
                totals[name] = totals[name] + product
        done += batch.size
    found = {name: _by_group(layers[name], np.asarray(total)) for name, total in totals.items()}
    return {
        layers[name].number: SecondMoment.of(second, DRAWS * data.samples)
        for name, second in found.items()
        if np.isfinite(second).all() and second.any()
    }


def _is_wanted(layer: Layer) -> bool:
    groups, rows, _ = layer.form.index.shape
    return layer.form.output != "" and rows > 1 and groups * rows <= WIDEST


def _by_group(layer: Layer, second: Floats) -> Floats:
    """[G, R, R], the blocks on the diagonal of [G·R, G·R]."""
    groups, rows, _ = layer.form.index.shape
    blocks = second.reshape(groups, rows, groups, rows)
    return np.ascontiguousarray(np.einsum("grgs->grs", blocks))
