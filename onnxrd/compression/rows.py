"""Rows of an embedding that are seldom looked up may be coarser: their errors seldom count.

How seldom, the samples say even of rows that they never touched. A row that is looked up by a + 1
of n samples is one that the other n - 1 knew a look-ups of, so that leaving out each sample in turn
tells how often rows known so and so well are looked up by a sample that was not counted (Good, The
population frequencies of species, 1953; tokens of a text come in bunches, hence samples for
tokens). Tokenizers number their tokens by frequency, nearly all of them, so that rows never seen
are told apart by their place in the table, as far as the samples bear it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.compression.network import Network, RowSets
from onnxrd.encodings.stacking import LEAST_OPSET
from onnxrd.graph.session import Session
from onnxrd.graph.stages import extract
from onnxrd.graph.weights import Weight

Array = NDArray[Any]
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

CLASSES = (1, 2, 3, 5, 9)
"""Samples that look a row up: where classes begin, behind that of rows never looked up."""

BLOCKS = 16
"""Of the table, that rows never looked up are told apart by."""

PRIOR = 4
"""Look-ups at the mean rate that are added to what each block shows."""

LEAST = 4096
"""Weights of a set."""

UNTOLD = 16
"""Times less than the rarest rows seen those never seen count, where no sample alone has any."""

RAREST = 256
"""Times less than the rarest rows seen any others may count: 16 times their step."""


@dataclass(frozen=True, eq=False)
class LookUps:
    """How often samples look up the rows of an embedding.

    Attributes:
        total: [rows], in all.
        samples: [rows], by how many samples.
    """

    total: Counts
    samples: Counts


def row_sets(
    network: Network, weight: Weight, importance: Array, feeds: Sequence[Mapping[str, Array]]
) -> RowSets | None:
    """Sets of rows that matter about equally, and how much.

    Args:
        network: that the weight is of.
        weight: an embedding.
        importance: [*weight], diagonal, as measured.
        feeds: the samples to count on, in batches.

    Returns: None for a weight that is not [rows, columns] and looked up by rows and nothing else,
        and where there is no difference to be made.
    """
    indices = _indices(network, weight)
    if indices is None:
        return None
    looked_up = _looked_up(network, indices, feeds)
    means = importance.mean(axis=1, dtype=np.float64)
    return sets_of(counted(looked_up, weight.shape[0]), means, weight.shape[1])


def _indices(network: Network, weight: Weight) -> ir.Value | None:
    """What looks up the rows of a weight, if nothing else is done with it."""
    uses = weight.uses
    if len(weight.shape) != 2 or len(uses) != 1 or uses[0].node.op_type != "Gather":
        return None
    if network.model.opset < LEAST_OPSET:
        return None
    node = uses[0].node
    axis, indices = node.attributes.get("axis"), node.inputs[1]
    if not network.is_main(node) or uses[0].moved or (axis is not None and axis.as_int() != 0):
        return None
    return None if indices is None or indices.is_initializer() else indices


def _looked_up(
    network: Network, indices: ir.Value, feeds: Sequence[Mapping[str, Array]]
) -> list[Array]:
    """The indices, of each batch."""
    if indices.is_graph_input():
        return [batch[str(indices.name)] for batch in feeds]
    inputs = [v for v in network.prepared.graph.inputs if v.name in feeds[0]]
    session = Session(
        extract(network.prepared, inputs, [indices]), base=network.base, runtime=network.runtime
    )
    return [session.run(batch)[str(indices.name)] for batch in feeds]


def counted(looked_up: Sequence[Array], rows: int) -> LookUps:
    """Look-ups by row.

    Args:
        looked_up: indices of each batch, [samples, *], or a scalar of one sample.
        rows: of the table.
    """
    total, by_samples = np.zeros((2, rows), np.int64)
    for array in looked_up:
        samples = np.atleast_1d(array)
        samples = samples.reshape(len(samples), -1) % rows
        once = np.unique(samples + rows * np.arange(len(samples))[:, None]) % rows
        total += np.bincount(samples.ravel(), minlength=rows)
        by_samples += np.bincount(once, minlength=rows)
    return LookUps(total, by_samples)


def sets_of(found: LookUps, importance: Floats, columns: int) -> RowSets | None:
    """Sets of rows, by how many samples look them up and, if none does, by their place.

    Args:
        found: look-ups.
        importance: [rows], mean importance of the weights of a row, as measured.
        columns: of the table.
    """
    edges = _edges(found.samples, columns)
    if not edges:
        return None
    known = np.searchsorted(edges, found.samples, side="right")
    before = np.searchsorted(edges, found.samples - 1, side="right")  # without one of the samples
    rows, total = (
        np.bincount(known, weights, minlength=len(edges) + 1) for weights in (None, found.total)
    )
    expected = np.bincount(before, found.total, minlength=len(edges) + 1) / np.maximum(rows, 1)
    worth = np.bincount(known, importance, minlength=len(edges) + 1)[1:] / total[1:]
    seen = np.maximum.accumulate(expected[1:] * worth)
    new = np.where(found.samples == 1, found.total, 0)
    blocks = _blocks(new, known == 0, columns)
    rarest = seen[0] / (RAREST if new.any() else UNTOLD)
    unseen = [min(max(rate * worth[0], rarest), seen[0]) for _, rate in blocks]
    matters = np.array([*unseen, *seen])
    if not matters.max() >= 2 * matters.min() > 0:
        return None
    classes = [np.flatnonzero(known == number + 1) for number in range(len(edges))]
    return RowSets([*(members for members, _ in blocks), *classes], matters, len(blocks))


def _edges(samples: Counts, columns: int) -> list[int]:
    """The least numbers of samples of classes that are large enough; of all rows seen."""
    edges: list[int] = []
    for edge in reversed(CLASSES):
        inside = (samples >= edge) & (samples < (edges[0] if edges else np.inf))
        if np.count_nonzero(inside) * columns >= LEAST:
            edges.insert(0, edge)
    return [CLASSES[0], *edges[1:]] if edges else []


def _blocks(new: Counts, unseen: NDArray[np.bool_], columns: int) -> list[tuple[Counts, float]]:
    """The rows never looked up, from block to block of the table, and their expected look-ups.

    Args:
        new: [rows], look-ups of those that a single sample looks up.
        unseen: [rows], which are never looked up.
        columns: of the table.
    """
    members = int(np.count_nonzero(unseen))
    mean = float(new.sum()) / max(members, 1)
    count = min(BLOCKS, max(1, members * columns // LEAST))
    edges = [len(new) * number // count for number in range(count + 1)]
    found: list[tuple[Counts, float]] = []
    for start, end in pairwise(edges):
        inside = start + np.flatnonzero(unseen[start:end])
        rate = mean * (float(new[start:end].sum()) + PRIOR) / (mean * len(inside) + PRIOR)
        if found and _alike(found[-1][1], rate):
            inside = np.concatenate((found[-1][0], inside))
            rate = (found.pop()[1] + rate) / 2
        if len(inside):
            found.append((inside, rate))
    return found


def _alike(one: float, other: float) -> bool:
    return max(one, other) <= 2**0.5 * min(one, other)
