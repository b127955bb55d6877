"""Constants other than weights in few bytes: computed before, held once, small numbers small."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeGuard

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnxrd.errors import ModelError
from onnxrd.graph.folding import fold, independent

FEW = 16
"""Entries of a constant that take about as many bytes as a node that computes them."""

MANY = 1 << 16
"""Entries that other constants may be computed from, or that are looked at number by number."""

LISTED_BELOW = 4
"""IR version below which every initializer is a graph input, too."""


def settle(model: ir.Model, keep: Collection[str]) -> None:
    """Make constants of the main graph and its bodies small, in place.

    Constant nodes become initializers, which have no more than a name and a tensor. What is
    computed from constants alone is computed here, if it has few entries. Equal constants become
    one. What then has no use goes, and integers are written with as many bytes as they need.

    Args:
        model: a copy, to change.
        keep: names of values that stay.
    """
    if model.ir_version < LISTED_BELOW:
        return
    lift = common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    lift(model)
    _fold(model, keep)
    for graph in model.graphs():
        _merge(graph, keep)
    _sweep(model.graph, keep)
    for graph in model.graphs():
        for value in graph.initializers.values():
            value.const_value = _in_varints(value.const_value)


def _fold(model: ir.Model, keep: Collection[str]) -> None:
    graph = model.graph
    fixed = independent(graph, shapes=True)
    ends = [
        value
        for node in graph
        for value in node.outputs
        if value in fixed
        and not value.is_graph_output()
        and not fixed.issuperset(v for use in value.uses() for v in use.node.outputs)
        and _is_setting(value, keep)
    ]
    try:
        folded = fold(model, ends, Path())
    except ModelError:  # what cannot be computed here stays as it is
        return
    for value, array in folded.items():
        if array.size <= FEW:
            held = ir.Value(name=value.name, const_value=ir.tensor(array))
            value.replace_all_uses_with(held)
            value.name = None
            graph.register_initializer(held)


def _is_setting(value: ir.Value, keep: Collection[str]) -> bool:
    """Whether a value comes from small constants by standard operators, and from no weight."""
    seen, stack = {value}, [value]
    while stack:
        here = stack.pop()
        node, tensor = here.producer(), here.const_value
        if here.name in keep or (node.domain if node else not _is_small(tensor)):
            return False
        for before in node.inputs if node else ():
            if before is not None and before not in seen:
                seen.add(before)
                stack.append(before)
    return True


def _is_small(tensor: ir.TensorProtocol | None) -> TypeGuard[ir.TensorProtocol]:
    return tensor is not None and tensor.size <= MANY and not isinstance(tensor, ir.ExternalTensor)


def _merge(graph: ir.Graph, keep: Collection[str]) -> None:
    """Let equal constants be one; those of floats stay, for they may yet change."""
    first: dict[tuple[Any, ...], ir.Value] = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if name in keep or value.is_graph_input() or value.is_graph_output():
            continue
        if not _is_small(tensor) or tensor.dtype.is_floating_point() or tensor.dtype.is_string():
            continue
        same = first.setdefault((tensor.dtype, *tensor.shape.numpy(), tensor.tobytes()), value)
        if same is not value:
            value.replace_all_uses_with(same)
            del graph.initializers[name]


def _sweep(graph: ir.Graph, keep: Collection[str]) -> None:
    """Remove what nothing uses."""
    for node in reversed(graph):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_input() or value.is_graph_output() or name in keep):
            del graph.initializers[name]


def _in_varints(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol | None:
    """The same 64-bit integers with as many bytes as each needs, where that is less."""
    if not _is_small(tensor) or tensor.dtype != ir.DataType.INT64:
        return tensor
    proto = onnx.TensorProto(data_type=onnx.TensorProto.INT64, dims=tensor.shape.numpy())
    proto.int64_data.extend(tensor.numpy().ravel().tolist())
    shorter = proto.ByteSize() < 8 * tensor.size + 2
    return ir.serde.TensorProtoTensor(proto) if shorter else tensor
