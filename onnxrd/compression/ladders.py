"""Rate and distortion of each weight, or of each set of its rows, on grids of many steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from onnxrd.allocation.ladder import Ladder, ladder, slope_for_bits, steps_at
from onnxrd.compression.curvature import measured_curvature
from onnxrd.compression.network import Network
from onnxrd.compression.rows import row_sets
from onnxrd.importance import Importance
from onnxrd.progress import Track, silent

Array = NDArray[Any]
Ladders = dict[str, dict[str, Ladder]]
"""Weight → its ladder by its name, or those of the sets of its rows by theirs."""

MEASURED_AT = 3.0
"""Bits a weight at which the sensitivity of each weight is measured."""


def divide(network: Network, importance: Importance, feeds: Sequence[Mapping[str, Array]]) -> None:
    """Find the sets of rows of embeddings, given samples to count on; adds to `row_sets`."""
    for weight in network.loose:
        measured = importance.measured(weight.name, weight.shape)
        if (sets := row_sets(network, weight, measured, feeds)) is not None:
            network.row_sets[weight.name] = sets


def by_importance(network: Network, means: Mapping[str, float]) -> Ladders:
    """Ladders with the curvature that importance tells.

    Args:
        network: with the sets of rows.
        means: weight → its mean importance.
    """
    found: Ladders = {}
    for weight in network.weights:
        name, array, sets = weight.name, weight.array(), network.row_sets.get(weight.name)
        if sets is None:
            found[name] = {name: ladder(array, means[name])}
        else:
            parts = zip(sets.names(name), sets.rows, sets.importance)
            found[name] = {part: ladder(array[rows], h) for part, rows, h in parts}
    return found


def sensitivity(
    network: Network, importance: Importance, means: Mapping[str, float], track: Track = silent
) -> dict[str, float]:
    """What to multiply the curvature of each weight with, see `measured_curvature`.

    Look-ups are counted on every other batch, so that it is measured on batches with rows that
    those counted on never touched.

    Args:
        network: with the samples to measure on; its rows are divided here.
        importance: as measured.
        means: weight → its mean importance.
        track: shows progress.
    """
    divide(network, importance, network.batches[::2])
    found = by_importance(network, means)
    flat = {name: one for parts in found.values() for name, one in parts.items()}
    slope = slope_for_bits(list(flat.values()), MEASURED_AT)
    predicted = {
        weight: sum(one.distortion(one.at(slope)) for one in parts.values())
        for weight, parts in found.items()
    }
    return measured_curvature(network, steps_at(flat, slope), predicted, track)
