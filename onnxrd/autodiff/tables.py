"""Gradients of large tables of embeddings: rows leave the reverse pass, not the whole table.

A batch looks up a few rows. Where their gradients are added to zeros by onnxruntime, two tables lie
in its memory; numpy's zeros take room only where something is added.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from numpy.typing import NDArray

Array = NDArray[Any]

LARGE = 1 << 18
"""Entries from which on a table is put together outside."""

ROWS, INDEX = "rows:", "index:"
"""What the names of the outputs begin with."""

_ADDED = "rows added to zeros"


def mark(added: ir.Value) -> None:
    """Note that a value is zeros [V, …], with rows added to them by the ScatterND it comes from."""
    added.meta[_ADDED] = True


def take_out(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Replace outputs that end in a marked ScatterND by its rows and their index, in place.

    Args:
        model: reverse pass, whose outputs `grad:NAME` are Identities of something.
        shapes: of these outputs, by NAME.

    Returns: NAMEs of the large tables that this was done for.
    """
    taken = set()
    for output in list(model.graph.outputs):
        name = str(output.name).removeprefix("grad:")
        added = _behind_reshapes(output)
        scatter = added.producer()
        if _ADDED not in added.meta or scatter is None or prod(shapes[name]) < LARGE:
            continue
        index, rows = (ir.node("Identity", [scatter.inputs[k]]).outputs[0] for k in (1, 2))
        index.name, rows.name = INDEX + name, ROWS + name
        index.type, rows.type = ir.TensorType(ir.DataType.INT64), output.type
        model.graph.extend(node for v in (index, rows) if (node := v.producer()))
        model.graph.outputs.remove(output)
        model.graph.outputs.extend((index, rows))
        taken.add(name)
    common_passes.RemoveUnusedNodesPass()(model)
    return frozenset(taken)


def _behind_reshapes(value: ir.Value) -> ir.Value:
    """What a value is, but for its shape."""
    node = value.producer()
    while node is not None and node.op_type in ("Identity", "Reshape"):
        assert node.inputs[0] is not None
        value = node.inputs[0]
        node = value.producer()
    return value


def put_together(outputs: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    """The gradient of a table [V, …]: zeros with the rows added that the reverse pass gives."""
    index, rows = outputs[INDEX + name], outputs[ROWS + name]
    table = np.zeros((shape[0], prod(shape[1:])), rows.dtype)
    np.add.at(table, index.reshape(-1), rows.reshape(index.size, -1))
    return table.reshape(shape)
