"""Types and shapes of values that follow from the values before them."""

from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir
from onnx import defs, shape_inference

SMALL = 64
"""Entries of a constant up to which it may be a shape, or what else a shape depends on."""


def forget_foretold(model: ir.Model, scopes: Iterable[ir.Graph | ir.Function]) -> None:
    """Forget types and shapes that follow, by the standard, from those of a node's inputs.

    The others stay: onnxruntime fuses some operators only where it knows shapes. (Without any, a
    sentence transformer lost its `SkipLayerNormalization`s.)

    Args:
        model: what the scopes belong to.
        scopes: graphs and functions, to change in place; bodies within them count on their own.
    """
    follow = [
        value
        for scope in scopes
        for node in scope
        for value in _foretold(node, scope.opset_imports or model.opset_imports, model.ir_version)
    ]
    for value in follow:
        value.type = value.shape = None


def _foretold(node: ir.Node, imports: dict[str, int], version: int) -> Iterator[ir.Value]:
    declared = [v for v in node.outputs if v.name and v.type and not v.is_graph_output()]
    if not declared:
        return
    inputs = [value for value in node.inputs if value is not None]
    try:
        found = shape_inference.infer_node_outputs(
            defs.get_schema(node.op_type, imports.get(node.domain, 1), node.domain),
            ir.to_proto(node),
            {str(value.name): ir.to_proto(value).type for value in inputs},
            {str(value.name): tensor for value in inputs if (tensor := _small(value))},
            opset_imports=[onnx.helper.make_opsetid(*entry) for entry in imports.items()],
            ir_version=version,
        )
    except (defs.SchemaError, shape_inference.InferenceError, KeyError, ValueError, RuntimeError):
        return  # no operator of the standard, or inputs of unknown type
    for value in declared:
        if value.name in found and _says(found[value.name], ir.to_proto(value).type):
            yield value


def _small(value: ir.Value) -> onnx.TensorProto | None:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size > SMALL or isinstance(tensor, ir.ExternalTensor):
        return None
    proto = ir.to_proto(tensor)
    assert isinstance(proto, onnx.TensorProto)
    return proto


def _says(found: onnx.TypeProto, declared: onnx.TypeProto) -> bool:
    """Whether an inferred type tells all that a declared one does."""
    if not declared.HasField("tensor_type"):
        return bool(found == declared)
    tensor, other = declared.tensor_type, found.tensor_type
    if tensor.elem_type != other.elem_type:
        return False
    if not tensor.HasField("shape"):
        return True
    dims, others = tensor.shape.dim, other.shape.dim
    return (
        other.HasField("shape")
        and len(dims) == len(others)
        and all(not d.WhichOneof("value") or d == o for d, o in zip(dims, others))
    )
