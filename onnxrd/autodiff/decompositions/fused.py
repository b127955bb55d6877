"""What onnxruntime's optimizer makes of neighbouring operators: taken apart again."""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxrd.autodiff.attributes import get_float, get_int, get_string
from onnxrd.autodiff.registry import NoRuleError, decomposition
from onnxrd.autodiff.rewriter import Rewriter

_FUSED = "com.microsoft"


@decomposition("FusedConv", domain=_FUSED)
def _fused_conv(b: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Y = act(Conv(X, W, B) + Z)."""
    kept = {n: a.value for n, a in node.attributes.items() if not n.startswith("activation")}
    y = b.op("Conv", *node.inputs[:3], **kept)
    z = b.input(3)
    return [_activated(b, y if z is None else b.op("Add", y, z), node, "activation_params")]


@decomposition("FusedGemm", domain=_FUSED)
def _fused_gemm(b: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    kept = {n: a.value for n, a in node.attributes.items() if not n.startswith("activation")}
    return [_activated(b, b.op("Gemm", *node.inputs, **kept), node, "")]


def _activated(b: Rewriter, x: ir.Value, node: ir.Node, listed: str) -> ir.Value:
    """The activation that the attributes name, with its parameters.

    Args:
        b: the rewriter.
        x: what it is applied to.
        node: with the attributes.
        listed: name of the attribute that lists the parameters; if empty each has its own.
    """
    kind = get_string(node, "activation", "")
    names = _PARAMETERS.get(kind, ())
    if listed:
        values = list(node.attributes[listed].as_floats()) if listed in node.attributes else []
        given = dict(zip(names, values))
    else:
        own = {name: f"activation_{name}" for name in names}
        given = {n: get_float(node, a, 0.0) for n, a in own.items() if a in node.attributes}
    if kind == "Clip" and b.trace.opset >= 11:
        return b.op("Clip", x, given.get("min"), given.get("max"))
    attributes: dict[str, Any] = dict(given)
    return b.op(kind, x, **attributes) if kind else x


_PARAMETERS = {
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
    "Elu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
    "Selu": ("alpha", "gamma"),
}


@decomposition("FusedMatMul", domain=_FUSED)
def _fused_matmul(b: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Y = α A' B', axes of A and B moved: "trans" swaps the last two, "transBatch" turns others."""
    y = b.op("MatMul", _transposed(b, node, 0, "A"), _transposed(b, node, 1, "B"))
    alpha = get_float(node, "alpha", 1.0)
    return [y if alpha == 1.0 else b.op("Mul", y, alpha)]


def _transposed(b: Rewriter, node: ir.Node, slot: int, side: str) -> ir.Value:
    """One of the factors, as it is multiplied."""
    x = node.inputs[slot]
    assert x is not None
    order = list(range(b.rank(x)))
    if get_int(node, f"transBatch{side}", 0) and len(order) > 2:
        order = [*order[1:-1], order[0], order[-1]]
    if get_int(node, f"trans{side}", 0) and len(order) > 1:
        order[-2:] = [order[-1], order[-2]]
    return b.transpose(x, order)


@decomposition("BiasGelu", "FastGelu", domain=_FUSED)
def _bias_gelu(b: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """The bias added first."""
    bias = b.input(1)
    if bias is None:
        raise NoRuleError("no bias")
    kind = "Gelu" if node.op_type == "BiasGelu" else "FastGelu"
    return [b.op(kind, b.op("Add", node.inputs[0], bias), domain=_FUSED)]


@decomposition("SkipLayerNormalization", domain=_FUSED)
def _skip(b: Rewriter, node: ir.Node) -> Sequence[ir.Value | None]:
    """LayerNormalization of input + skip + bias."""
    x, skip, gamma = node.inputs[:3]
    total = _sum(b, b.op("Add", x, skip), b.input(4))
    epsilon = get_float(node, "epsilon", 1e-12)
    y = b.op("LayerNormalization", total, gamma, b.input(3), axis=-1, epsilon=epsilon)
    return [y, None, None, total]


@decomposition("SkipSimplifiedLayerNormalization", domain=_FUSED)
def _skip_simplified(b: Rewriter, node: ir.Node) -> Sequence[ir.Value | None]:
    """Root-mean-square normalisation of input + skip + bias."""
    x, skip, gamma = node.inputs[:3]
    total = _sum(b, b.op("Add", x, skip), b.input(3))
    epsilon = get_float(node, "epsilon", 1e-12)
    y = b.op("SimplifiedLayerNormalization", total, gamma, axis=-1, epsilon=epsilon)
    return [y, None, None, total]


def _sum(b: Rewriter, x: ir.Value, bias: ir.Value | None) -> ir.Value:
    return x if bias is None else b.op("Add", x, bias)
