"""Do without operators that have no derivative: what they do, said with simpler ones.

For an operator that stands in the way of gradients there is first our own decomposition, then the
body that the ONNX standard gives it as a function; If, Loop and Scan are unrolled. All are written
into the network, for the shapes of one trace, so that its own forward pass runs them.
"""

from collections.abc import Iterable
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

import onnxrd.autodiff.decompositions  # noqa: F401  (fills the registry)
from onnxrd.autodiff.registry import DECOMPOSITIONS, NoRuleError, domain_of
from onnxrd.autodiff.rewriter import Rewriter
from onnxrd.autodiff.trace import Trace
from onnxrd.autodiff.unroll import unroll

_BODIES = "function body"
"""Domain that operators get on the way to being replaced by their bodies."""


def lower(trace: Trace, obstacles: Iterable[ir.Node]) -> dict[ir.Node, str]:
    """Rewrite operators of a traced network in place, as far as that is known how.

    Args:
        trace: of the network; it says nothing about the network any more if that was changed.
        obstacles: operators of its main graph.

    Returns: those that were rewritten, and how: "function body of Gelu", say.
    """
    kinds = {node: node.op_type for node in obstacles}
    how: dict[ir.Node, str] = {}
    bodies: dict[ir.Node, ir.Function] = {}
    for node in kinds:
        if _decompose(trace, node):
            how[node] = "decomposition"
        elif body := _function_body(trace, node):
            how[node], bodies[node] = "function body", body
        elif unroll(trace, node):
            how[node] = "unrolling"
    _inline(trace.model, bodies)
    return {node: f"{what} of {kinds[node]}" for node, what in how.items()}


def has_function_body(op_type: str, opset: int) -> bool:
    """Whether the ONNX standard says what an operator does in terms of others."""
    if not onnx.defs.has(op_type, opset, ""):
        return False
    schema: Any = onnx.defs.get_schema(op_type, opset, "")
    return bool(schema.has_function or schema.has_context_dependent_function)


def _function_body(trace: Trace, node: ir.Node) -> ir.Function | None:
    """The body for this node: its attributes, types and inputs; None if there is none."""
    if domain_of(node) or not has_function_body(node.op_type, trace.opset):
        return None
    schema: Any = onnx.defs.get_schema(node.op_type, trace.opset, "")
    for name, attribute in schema.attributes.items():
        if attribute.default_value.type and name not in node.attributes:
            node.attributes.add(ir.serde.deserialize_attribute(attribute.default_value))
    proto = _body_proto(trace, node, schema)
    if proto is None:
        return None
    _deliver_all(proto, node)
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", trace.opset))
    return ir.serde.deserialize_function(proto)


def _body_proto(trace: Trace, node: ir.Node, schema: Any) -> onnx.FunctionProto | None:
    """The newest body of a schema for these types; None if it has none for them.

    A body is not given for an opset in which an operator that it uses has changed, even where that
    makes no difference; then an older one serves.
    """
    types = [_type(trace, value) for value in node.inputs]
    serialised = ir.to_proto(node).SerializeToString()
    for opset in range(trace.opset, schema.since_version - 1, -1):
        proto = onnx.FunctionProto()
        proto.ParseFromString(
            schema.get_function_with_opset_version(opset)
            if schema.has_function
            else schema.get_context_dependent_function_with_opset_version(opset, serialised, types)
        )
        if proto.node:
            return proto
    return None


def _deliver_all(proto: onnx.FunctionProto, node: ir.Node) -> None:
    """A body may leave out what the node does not ask for: nothing stands for it, with a name."""
    del proto.output[len(node.outputs) :]
    for value in node.outputs:
        value.name = value.name or f"{node.outputs[0].name}/unused{value.index()}"
    made = {name for inner in proto.node for name in inner.output}
    nothing = onnx.helper.make_tensor("nothing", onnx.TensorProto.FLOAT, [0], [])
    for name in set(proto.output) - made:
        proto.node.append(onnx.helper.make_node("Constant", [], [name], value=nothing))


def _type(trace: Trace, value: ir.Value | None) -> bytes:
    if value is None:
        return b""
    code = int(ir.DataType.from_numpy(trace.dtypes[value]))
    proto = onnx.helper.make_tensor_type_proto(code, trace.shapes[value])
    return bytes(proto.SerializeToString())


def _inline(model: ir.Model, bodies: dict[ir.Node, ir.Function]) -> None:
    for number, (node, body) in enumerate(bodies.items()):
        node.domain = body.domain = _BODIES
        node.op_type = body.name = f"{node.op_type}{number}"
        model.functions[body.identifier()] = body
    if bodies:
        common_passes.InlinePass()(model)
        common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def _decompose(trace: Trace, node: ir.Node) -> bool:
    """Replace a node by its decomposition, if there is one and it applies."""
    rewrite = DECOMPOSITIONS.get((domain_of(node), node.op_type))
    if rewrite is None:
        return False
    rewriter = Rewriter(trace, node)
    try:
        values = rewrite(rewriter, node)
    except NoRuleError:
        return False
    pairs = [(old, new) for old, new in zip(node.outputs, values) if new is not None]
    lost = set(node.outputs) - {old for old, _ in pairs}
    if any(value.uses() or value.is_graph_output() for value in lost):
        return False
    ir.convenience.replace_nodes_and_values(
        trace.model.graph,
        node,
        [node],
        rewriter.nodes,
        [old for old, _ in pairs],
        [new for _, new in pairs],
    )
    return True
