"""Where a network is piecewise linear in a weight, and which operators bend it.

Behind a kink of ReLU a network is linear in each single weight, as long as nothing multiplies two
values that both depend on it. There the second derivative of a loss of the outputs is the
Gauss–Newton term alone, and the diagonals of the two are the same.
"""

from collections.abc import Sequence

import onnx_ir as ir

from onnxrd.autodiff.dependence import captured_by, depending_on
from onnxrd.autodiff.registry import domain_of
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.trace import Trace

# fmt: off
_PIECEWISE_LINEAR = frozenset(
    {
        "Abs", "Add", "AveragePool", "Cast", "CastLike", "Ceil", "Clip", "Compress", "Concat",
        "CumSum", "DepthToSpace", "DequantizeLinear", "Dropout", "Expand", "Flatten", "Floor",
        "Gather", "GatherElements", "GatherND", "GlobalAveragePool", "GlobalMaxPool",
        "HardSigmoid", "Identity", "LeakyRelu", "Max", "MaxPool", "Mean", "Min", "Neg", "Pad",
        "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Resize",
        "Round", "Scatter", "ScatterElements", "ScatterND", "Shrink", "Sign", "Slice",
        "SpaceToDepth", "Split", "Squeeze", "Sub", "Sum", "ThresholdedRelu", "Tile", "TopK",
        "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where",
    }
)
# fmt: on
"""Operators that are piecewise linear in all their inputs together."""

_FACTORS: dict[str, tuple[frozenset[int], ...]] = {
    "Mul": (frozenset({0}), frozenset({1})),
    "MatMul": (frozenset({0}), frozenset({1})),
    "Gemm": (frozenset({0, 2}), frozenset({1, 2})),
    "Conv": (frozenset({0, 2}), frozenset({1, 2})),
    "ConvTranspose": (frozenset({0, 2}), frozenset({1, 2})),
    "Div": (frozenset({0}),),
    "PRelu": (frozenset({0}), frozenset({1})),
    "BatchNormalization": (frozenset({0, 2, 3}), frozenset({1, 2})),
}
"""Operators that multiply: sets of input slots in which they are piecewise linear together."""


def is_bent(node: ir.Node, slots: frozenset[int]) -> bool:
    """Whether a node is other than piecewise linear in these inputs taken together."""
    if domain_of(node) or captured_by(node):
        return True
    if node.op_type == "Einsum":
        return len(slots) > 1
    if node.op_type in _FACTORS:
        return not any(slots <= linear for linear in _FACTORS[node.op_type])
    return node.op_type not in _PIECEWISE_LINEAR


def bends(trace: Trace, weight: ir.Value, sources: Sequence[ir.Value]) -> list[ir.Node]:
    """The operators between a weight and some values that are not piecewise linear in it."""
    behind = depending_on(trace.model.graph, [weight], Tape(trace))
    before = _producing(sources)
    found = []
    for node in trace.model.graph:
        slots = frozenset(slot for slot, value in enumerate(node.inputs) if value in behind)
        leads_on = node in before and any(value in behind for value in node.outputs)
        if leads_on and (not slots or is_bent(node, slots)):
            found.append(node)
    return found


def _producing(sources: Sequence[ir.Value]) -> set[ir.Node]:
    """All nodes that the sources are computed by."""
    found: set[ir.Node] = set()
    stack = [source.producer() for source in sources]
    while stack:
        node = stack.pop()
        if node is None or node in found:
            continue
        found.add(node)
        stack.extend(v.producer() for v in (*node.inputs, *captured_by(node)) if v is not None)
    return found
