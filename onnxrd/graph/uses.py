"""Who uses a constant, and as what."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

PASSED_THROUGH = frozenset(
    {
        "Identity",
        "Transpose",
        "Reshape",
        "Cast",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Slice",
        "Split",
    }
)
"""Operators that only move a weight's entries (input 0) on their way to its use."""

_ROLES: dict[tuple[str, int], str] = {
    ("Conv", 1): "convolution",
    ("ConvTranspose", 1): "convolution",
    ("Gemm", 0): "linear",
    ("Gemm", 1): "linear",
    ("MatMul", 0): "linear",
    ("MatMul", 1): "linear",
    ("Einsum", 0): "linear",
    ("Einsum", 1): "linear",
    ("Gather", 0): "embedding",
    ("Conv", 2): "bias",
    ("ConvTranspose", 2): "bias",
    ("Gemm", 2): "bias",
}
_ROLES |= {(op, slot): "recurrent" for op in ("LSTM", "GRU", "RNN") for slot in (1, 2)}
_ROLES |= {(op, 3): "bias" for op in ("LSTM", "GRU", "RNN")}
_ROLES |= {
    ("FusedConv", 1): "convolution",
    ("FusedConv", 2): "bias",
    ("FusedGemm", 1): "linear",
    ("FusedGemm", 2): "bias",
    ("FusedMatMul", 0): "linear",
    ("FusedMatMul", 1): "linear",
    ("Attention", 1): "linear",
    ("Attention", 2): "bias",
    ("MultiHeadAttention", 3): "bias",
    ("BiasGelu", 1): "bias",
    ("FastGelu", 1): "bias",
    ("EmbedLayerNormalization", 2): "embedding",
    ("EmbedLayerNormalization", 3): "embedding",
    ("EmbedLayerNormalization", 4): "embedding",
    ("EmbedLayerNormalization", 5): "normalisation",
    ("EmbedLayerNormalization", 6): "normalisation",
}
NORMALISATIONS = (
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
)
_ROLES |= {(op, slot): "normalisation" for op in NORMALISATIONS for slot in range(1, 5)}
ELEMENTWISE = {"Add": "bias", "Sub": "bias", "Mul": "normalisation", "Div": "normalisation"}

MOST_STEPS = 8
"""How often in a row a constant may be put together with others before its use is looked at."""

COMPRESSIBLE = frozenset({"convolution", "linear", "embedding", "recurrent"})
"""Roles whose weights are compressed; biases and normalisation parameters stay as they are."""


@dataclass(frozen=True)
class Use:
    """One use of a weight: input `slot` of `node`, maybe behind operators that only move entries.

    Attributes:
        node: the operator that computes with the weight.
        slot: the position of the weight among its inputs.
        moved: the moving operators between, from the initializer to the use.
    """

    node: ir.Node
    slot: int
    moved: tuple[ir.Node, ...] = ()


def uses_of(value: ir.Value) -> Iterator[Use]:
    """The operators that compute with a weight, followed through those that only move it."""
    stack = [Use(use.node, use.idx) for use in reversed(list(value.uses()))]
    while stack:
        use = stack.pop()
        if use.node.op_type in PASSED_THROUGH and use.node.domain == "" and use.slot == 0:
            moved = (*use.moved, use.node)
            further = [again for output in use.node.outputs for again in output.uses()]
            stack += [Use(again.node, again.idx, moved) for again in reversed(further)]
        else:
            yield use


def role_of(use: Use, shape: tuple[int, ...], depth: int = MOST_STEPS) -> str:
    """What a constant of this shape is at one of its uses.

    Where it is put together with other constants (gates of a recurrent operator, a scale for each
    channel) before any data come in, it is what the result is; after `depth` such steps that is
    not followed any further.
    """
    op, wide = use.node.op_type, sum(d > 1 for d in shape) > 1
    if depth and wide and (op == "Concat" or op in ELEMENTWISE) and _computed(use.node):
        later = [role_of(other, shape, depth - 1) for other in uses_of(use.node.outputs[0])]
        return min([role for role in later if role in COMPRESSIBLE] or later or ["other"])
    if op in ELEMENTWISE:
        return "embedding" if wide else ELEMENTWISE[op]
    if op == "PRelu" and use.slot == 1:
        return "normalisation"
    role = _ROLES.get((op, use.slot))
    return role if role is not None else f"input {use.slot} of {op}"


def quantizes(node: ir.Node) -> bool:
    """Whether an operator computes with quantized weights, or turns them into numbers."""
    op = node.op_type
    return op in _QUANTIZED or op.startswith(("QLinear", "DynamicQuantize", "QGemm", "QAttention"))


_QUANTIZED = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "GatherBlockQuantized",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulBnb4",
        "MatMulNBits",
        "QMoE",
    }
)


def _computed(node: ir.Node) -> bool:
    """Whether an operator reads nothing but constants, and what is computed of them."""
    for value in node.inputs:
        if value is None or value.const_value is not None:
            continue
        producer = value.producer()
        if producer is None or not producer.inputs or not _computed(producer):
            return False
    return True


def channel_axis(use: Use, rank: int) -> int | None:
    """The axis, in the stored weight, of the output channels at its use."""
    axis = _channel_axis_at_use(use, rank)
    for node in reversed(use.moved):
        if axis is None or node.op_type in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
            return None
        if node.op_type == "Transpose":
            attribute = node.attributes.get("perm")
            permutation = list(attribute.as_ints()) if attribute else list(range(rank))[::-1]
            axis = permutation[axis]
    return axis


def _channel_axis_at_use(use: Use, rank: int) -> int | None:
    op, slot = use.node.op_type, use.slot
    if op in ("Gemm", "FusedGemm", "MatMul", "FusedMatMul"):
        attribute = use.node.attributes.get("transB" if slot == 1 else "transA")
        transposed = bool(attribute and attribute.as_int())
        return (rank - 2 + int(transposed != (slot == 1))) if rank > 1 else None
    fixed = {"Conv": 0, "ConvTranspose": 1, "Gather": 0, "LSTM": 1, "GRU": 1, "RNN": 1}
    fixed |= {"FusedConv": 0, "Attention": 1, "EmbedLayerNormalization": 0}
    return fixed.get(op)
