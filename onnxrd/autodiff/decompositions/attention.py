"""onnxruntime's attention operators: projections, heads, scaled products, masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_float, get_int, get_ints
from onnxrd.autodiff.registry import NoRuleError, decomposition
from onnxrd.autodiff.rewriter import Rewriter

_FUSED = "com.microsoft"


@dataclass(frozen=True)
class _Sizes:
    """Lengths of the axes of attention.

    Attributes:
        batch: B.
        heads: N.
        queries: S.
        keys: T, those of the past among them.
    """

    batch: int
    heads: int
    queries: int
    keys: int


@decomposition("Attention", domain=_FUSED)
def _attention(b: Rewriter, node: ir.Node) -> Sequence[ir.Value | None]:
    """Self-attention with one projection [D, Q + K + V widths] for the three."""
    x, weights, bias = node.inputs[:3]
    assert x is not None and weights is not None
    if b.input(6) is not None or get_int(node, "do_rotary", 0):
        raise NoRuleError("a shared buffer of the past, or rotary embedding")
    batch, steps, _ = b.shape(x)
    heads, total = get_int(node, "num_heads", 1), b.shape(weights)[1]
    widths = get_ints(node, "qkv_hidden_sizes", [total // 3] * 3)
    projected = b.op("MatMul", x, weights)
    if bias is not None:
        projected = b.op("Add", projected, bias)
    ends = np.cumsum([0, *widths]).tolist()
    parts = [
        _heads(b, b.slice(projected, 2, ends[k], ends[k + 1]), (batch, steps, widths[k]), heads)
        for k in range(3)
    ]
    past, present, keys = b.input(4), None, steps
    if past is not None:
        keys += b.shape(past)[3]
        before = [b.reshape(b.slice(past, 0, k, k + 1), b.shape(past)[1:]) for k in (0, 1)]
        parts[1:] = [b.op("Concat", *pair, axis=2) for pair in zip(before, parts[1:])]
    if node.outputs[1:] and node.outputs[1].name:
        apart = [b.reshape(part, (1, batch, heads, keys, -1)) for part in parts[1:]]
        present = b.op("Concat", *apart, axis=0)
    sizes = _Sizes(batch, heads, steps, keys)
    return [_attend(b, node, parts, sizes, b.input(3), b.input(5), widths), present]


@decomposition("MultiHeadAttention", domain=_FUSED)
def _multi_head(b: Rewriter, node: ir.Node) -> Sequence[ir.Value | None]:
    """Attention of projected queries, keys and values, each [B, S, width]."""
    query, key, value = (b.input(slot) for slot in range(3))
    if any(v is None or b.rank(v) != 3 for v in (query, key, value)) or b.input(8) is not None:
        raise NoRuleError("packed or cached inputs")
    assert query is not None and key is not None and value is not None
    heads, bias = get_int(node, "num_heads", 1), b.input(3)
    shapes = [b.shape(v) for v in (query, key, value)]
    widths = [shape[2] for shape in shapes]
    ends, parts = np.cumsum([0, *widths]).tolist(), []
    for k, part in enumerate((query, key, value)):
        if bias is not None:
            part = b.op("Add", part, b.slice(bias, 0, ends[k], ends[k + 1]))
        parts.append(_heads(b, part, shapes[k], heads))
    past, keys = [b.input(6), b.input(7)], shapes[1][1]
    if past[0] is not None:
        keys += b.shape(past[0])[2]
        parts[1:] = [b.op("Concat", *pair, axis=2) for pair in zip(past, parts[1:])]
    sizes = _Sizes(shapes[0][0], heads, shapes[0][1], keys)
    y = _attend(b, node, parts, sizes, b.input(4), b.input(5), widths)
    present = [b.op("Identity", part) for part in parts[1:]] if node.outputs[1:] else []
    return [y, *present]


def _heads(b: Rewriter, x: ir.Value, shape: Sequence[int], heads: int) -> ir.Value:
    """[B, S, N · H] → [B, N, S, H]."""
    batch, steps, width = shape
    return b.transpose(b.reshape(x, (batch, steps, heads, width // heads)), (0, 2, 1, 3))


def _attend(
    b: Rewriter,
    node: ir.Node,
    parts: Sequence[ir.Value],
    sizes: _Sizes,
    mask: ir.Value | None,
    bias: ir.Value | None,
    widths: Sequence[int],
) -> ir.Value:
    """softmax(scale · Q Kᵀ + masks + bias) V, [B, S, N · H]."""
    query, key, value = parts
    scale = get_float(node, "scale", 0.0) or 1 / sqrt(widths[0] // sizes.heads)
    scores = b.op("MatMul", query, b.transpose(key, (0, 1, 3, 2)))
    scores = b.op("Mul", scores, scale)
    filtered = get_float(node, "mask_filter_value", -10000.0)
    if mask is not None:
        hidden = b.op("Sub", 1.0, _seen(b, mask, sizes))
        scores = b.op("Add", scores, b.op("Mul", hidden, filtered))
    if get_int(node, "unidirectional", 0):
        future = np.triu(np.ones((sizes.queries, sizes.keys)), 1 + sizes.keys - sizes.queries)
        scores = b.op("Add", scores, (future * filtered).astype(b.dtype))
    if bias is not None:
        scores = b.op("Add", scores, bias)
    mixed = b.op("MatMul", b.op("Softmax", scores, axis=-1), value)
    together = b.transpose(mixed, (0, 2, 1, 3))
    return b.reshape(together, (sizes.batch, sizes.queries, widths[2]))


def _seen(b: Rewriter, mask: ir.Value, sizes: _Sizes) -> ir.Value:
    """1 where a key may be looked at, else 0; it broadcasts to [B, N, S, T].

    A mask is the keys' number [B], or a flag for every key [B, T] or every pair [B, S, T].
    """
    shape = b.shape(mask)
    if shape == (sizes.batch,):
        column = b.reshape(b.op("Cast", mask, to=int(ir.DataType.INT64)), (sizes.batch, 1, 1, 1))
        seen = b.op("Less", np.arange(sizes.keys), column)
    elif shape == (sizes.batch, sizes.keys):
        seen = b.op("Cast", b.reshape(mask, (sizes.batch, 1, 1, sizes.keys)), to=_BOOL)
    elif shape == (sizes.batch, sizes.queries, sizes.keys):
        seen = b.op("Cast", b.reshape(mask, (sizes.batch, 1, *shape[1:])), to=_BOOL)
    else:
        raise NoRuleError(f"a mask of shape {list(shape)}")
    return b.op("Cast", seen, to=int(ir.DataType.from_numpy(b.dtype)))


_BOOL = int(ir.DataType.BOOL)
