"""Rotary embedding: pairs of features turned by an angle that grows with the position."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_int
from onnxrd.autodiff.registry import NoRuleError, decomposition
from onnxrd.autodiff.rewriter import Rewriter


@decomposition("RotaryEmbedding")
def _standard(b: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Angles for every token, or a table of them and the tokens' positions."""
    cos, sin = node.inputs[1:3]
    assert cos is not None and sin is not None
    positions = b.input(3)
    if positions is not None:
        cos, sin = (b.op("Gather", table, positions, axis=0) for table in (cos, sin))
    return [_rotated(b, node, cos, sin)]


@decomposition("RotaryEmbedding", domain="com.microsoft")
def _microsoft(b: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """A table of angles; the positions of the tokens, or that of the first."""
    x, positions, cos, sin = node.inputs[:4]
    assert x is not None and positions is not None
    if get_int(node, "is_packed_batching", 0):
        raise NoRuleError("packed batches")
    if b.shape(positions) in ((), (1,)):
        positions = b.op("Add", positions, np.arange(b.shape(x)[-2])[None])
    cos, sin = (b.op("Gather", table, positions, axis=0) for table in (cos, sin))
    return [_rotated(b, node, cos, sin)]


def _rotated(b: Rewriter, node: ir.Node, cos: ir.Value, sin: ir.Value) -> ir.Value:
    """The input [B, heads, T, D] or [B, T, heads · D] with its features turned.

    Args:
        b: the rewriter.
        node: the operator.
        cos: [B or 1, T, R]; the first 2 R features of each head turn.
        sin: the same.
    """
    x, table = node.inputs[0], node.inputs[2]
    assert x is not None and table is not None
    shape, width, swap = b.shape(x), b.shape(table)[-1], (0, 2, 1, 3)
    if len(shape) == 4:
        moved, full = b.transpose(x, swap), [shape[k] for k in swap]
        return b.transpose(_turned(b, moved, full, (cos, sin), width), swap)
    heads = get_int(node, "num_heads", 0) or shape[2] // (2 * width)
    full = [*shape[:2], heads, shape[2] // heads]
    return b.reshape(_turned(b, b.reshape(x, full), full, (cos, sin), width), shape)


def _turned(
    b: Rewriter,
    x: ir.Value,
    shape: Sequence[int],
    angles: tuple[ir.Value, ir.Value],
    width: int,
) -> ir.Value:
    """Features (u, v) become (u cos − v sin, u sin + v cos); pairs are neighbours, else halves.

    Args:
        b: the rewriter.
        x: [B, T, heads, D].
        shape: of x.
        angles: cos and sin, [B or 1, T, width].
        width: how many pairs of features turn.
    """
    cos, sin = (b.reshape(v, (-1, shape[1], 1, width)) for v in angles)
    axis = 4 if get_int(b.node, "interleaved", 0) else 3
    split, half = [*shape[:3], width], (*shape[:3], width)
    split.insert(axis, 2)
    one = [1 if k == axis else n for k, n in enumerate(split)]
    pairs = b.reshape(b.slice(x, 3, 0, 2 * width), split)
    u, v = (b.reshape(b.slice(pairs, axis, k, k + 1), half) for k in (0, 1))
    real = b.op("Sub", b.op("Mul", u, cos), b.op("Mul", v, sin))
    imaginary = b.op("Add", b.op("Mul", u, sin), b.op("Mul", v, cos))
    turned = b.op("Concat", b.reshape(real, one), b.reshape(imaginary, one), axis=axis)
    turned = b.reshape(turned, (*shape[:3], 2 * width))
    if shape[3] == 2 * width:
        return turned
    return b.op("Concat", turned, b.slice(x, 3, 2 * width, shape[3]), axis=3)
