"""What in a graph is constant, although computed: values that no input has an influence on."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.graph.session import Session

_RANDOM = frozenset(
    {
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
    }
)


def independent(
    graph: ir.Graph, *, shapes: bool, given: Collection[ir.Value] = (), branches: bool = False
) -> set[ir.Value]:
    """Values that are the same for all inputs, or (not `shapes`) for all inputs of these shapes.

    Args:
        graph: the network.
        shapes: those of inputs may differ.
        given: inputs that are known.
        branches: an If may be among what they come from.
    """
    fixed = {*given, *graph.initializers.values()}
    for node in graph:
        bodies = bodies_of(node)
        inside = [one for body in bodies for one in body.all_nodes()]
        read = {v for one in (node, *inside) for v in one.inputs if v is not None}
        known = read - {v for one in inside for v in one.outputs} <= fixed
        known = known or (not shapes and node.op_type in ("Shape", "Size"))
        known = known and (not bodies or (branches and node.op_type == "If"))
        if known and _RANDOM.isdisjoint(one.op_type for one in (node, *inside)):
            fixed.update(node.outputs)
    return fixed


def bodies_of(node: ir.Node) -> list[ir.Graph]:
    """The subgraphs of an If, a Loop or a Scan."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found += attribute.as_graphs()
    return found


def fold(model: ir.Model, values: Sequence[ir.Value], base: Path) -> dict[ir.Value, NDArray[Any]]:
    """Compute constant values of a model's main graph by running what they come from.

    Args:
        model: prepared (`Model.prepared`).
        values: constant ones, see `independent`.
        base: folder of the model's external data.

    Returns: those that are tensors.

    Raises:
        ModelError: onnxruntime cannot run that part of the graph.
    """
    computed = list(dict.fromkeys(value for value in values if value.const_value is None))
    arrays = {v: np.asarray(v.const_value.numpy()) for v in values if v.const_value is not None}
    if computed:
        graph = ir.convenience.extract(model.graph, [], computed)
        part = ir.Model(graph, ir_version=model.ir_version)
        found = Session(part, base=base, level="disable").run({})
        arrays |= {value: found[value.name] for value in computed if value.name in found}
    return arrays


def constants_of(value: ir.Value) -> set[ir.Value]:
    """The initializers that a constant value is computed from."""
    found: set[ir.Value] = set()
    seen, stack = {value}, [value]
    while stack:
        here = stack.pop()
        node = here.producer()
        if here.const_value is not None:
            found.add(here)
        for before in node.inputs if node is not None else ():
            if before is not None and before not in seen:
                seen.add(before)
                stack.append(before)
    return found
