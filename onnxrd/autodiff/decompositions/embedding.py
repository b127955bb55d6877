"""BERT's embeddings as one operator."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_float, get_int
from onnxrd.autodiff.registry import decomposition
from onnxrd.autodiff.rewriter import Rewriter


@decomposition("EmbedLayerNormalization", domain="com.microsoft")
def _embed(b: Rewriter, node: ir.Node) -> Sequence[ir.Value | None]:
    """LayerNormalization of word + position (+ segment) embeddings; the mask gives lengths."""
    ids, segments, words, places, kinds, gamma, beta = node.inputs[:7]
    assert ids is not None and places is not None
    positions, mask = b.input(8), b.input(7)
    steps = b.shape(ids)[1]
    where = (
        b.reshape(b.slice(places, 0, 0, steps), (1, steps, -1))
        if positions is None
        else b.op("Gather", places, positions, axis=0)
    )
    total = b.op("Add", b.op("Gather", words, ids, axis=0), where)
    if segments is not None and kinds is not None:
        total = b.op("Add", total, b.op("Gather", kinds, segments, axis=0))
    epsilon = get_float(node, "epsilon", 1e-12)
    y = b.op("LayerNormalization", total, gamma, beta, axis=-1, epsilon=epsilon)
    return [y, _lengths(b, node, mask, b.shape(ids)), total]


def _lengths(
    b: Rewriter, node: ir.Node, mask: ir.Value | None, shape: tuple[int, ...]
) -> ir.Value | None:
    """[B] int32: tokens that the mask lets through."""
    if get_int(node, "mask_index_type", 1) == 0 and mask is None:
        return None
    if mask is None:
        return b.op("Identity", np.zeros(shape[0], np.int32))
    numbers = b.op("Cast", mask, to=int(ir.DataType.FLOAT))
    column = np.ones((shape[1], 1), np.float32)
    counts = b.reshape(b.op("MatMul", numbers, column), (shape[0],))
    return b.op("Cast", counts, to=int(ir.DataType.INT32))
