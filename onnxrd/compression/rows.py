"""Rows of an embedding that are seldom looked up may be coarser: their errors seldom count.

How seldom, the samples that they were counted on cannot say of the rows that they never touched. So
the samples are split in two: rows that the one half looked up c times were looked up e(c) times by
the other half, on average, and e(0) is not zero (held-out estimation, Jelinek and Mercer 1985).
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.compression.network import Network
from onnxrd.graph.session import Session
from onnxrd.graph.stages import extract
from onnxrd.graph.weights import Weight

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

COARSEST = 4
"""How many times the step of the others that of a seldom row may be, a power of two. Texts differ,
and a row that calibration never touched may matter to another text."""

CLASSES = (0, 1, 2, 3, 5)
"""Where classes of counts begin; rows of a class are taken to be looked up equally often."""


def row_scales(network: Network, weight: Weight) -> Counts | None:
    """By which factor the step of each row is larger than that of the others, [rows, 1].

    Args:
        network: with the samples to count on.
        weight: an embedding.

    Returns: powers of two, for a weight [rows, columns] that is looked up by rows and nothing else;
        None for any other.
    """
    uses = weight.uses
    if len(weight.shape) != 2 or len(uses) != 1 or uses[0].node.op_type != "Gather":
        return None
    node = uses[0].node
    axis = node.attributes.get("axis")
    indices = node.inputs[1]
    if (
        not network.is_main(node)
        or uses[0].moved
        or indices is None
        or (axis is not None and axis.as_int() != 0)
    ):
        return None
    halves = _counts(network, indices, weight.shape[0])
    return None if halves is None else _scales(*halves)[:, None]


def _counts(network: Network, indices: ir.Value, rows: int) -> tuple[Counts, Counts] | None:
    """[rows] twice: how often each half of the samples looks each row up."""
    inputs = [v for v in network.prepared.graph.inputs if v.name in network.batches[0]]
    if indices.is_graph_input():
        looked_up = [feeds[str(indices.name)] for feeds in network.batches]
    elif indices.is_initializer():
        return None
    else:
        session = Session(
            extract(network.prepared, inputs, [indices]), base=network.base, runtime=network.runtime
        )
        looked_up = [session.run(feeds)[str(indices.name)] for feeds in network.batches]
    halves = np.zeros((2, rows), np.int64)
    for number, array in enumerate(looked_up):
        samples = array if array.ndim > 1 else array[None]
        for which in (0, 1):
            mine = samples[(which + number) % 2 :: 2].ravel() % rows
            halves[which] += np.bincount(mine, minlength=rows)
    return halves[0], halves[1]


def _scales(one: Counts, other: Counts) -> Counts:
    """[rows], powers of two: step² · expected look-ups shall be the same for every row."""
    edges = np.array(CLASSES)
    expected = np.zeros(len(edges))
    for counted, later in ((one, other), (other, one)):
        classes = np.searchsorted(edges, counted, side="right") - 1
        members = np.bincount(classes, minlength=len(edges))
        total = np.bincount(classes, later, minlength=len(edges))
        expected += total / np.maximum(members, 1) / 2
    both = one + other
    of_row = expected[np.searchsorted(edges, both / 2, side="right") - 1]
    seen = both > 0
    if not seen.any() or seen.all():
        return np.ones(len(both), np.int64)
    typical = float(both[seen].mean()) / 2
    wanted = np.sqrt(typical / np.maximum(of_row, typical / COARSEST**4))
    scales = 2 ** np.rint(np.log2(np.clip(wanted, 1, COARSEST))).astype(np.int64)
    scales[seen & (both / 2 >= 1)] = 1
    return np.asarray(scales)
