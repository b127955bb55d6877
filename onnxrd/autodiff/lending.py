"""Large matrices are lent to sessions as inputs; constants would be copied into each of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]

LARGE = 1 << 18
"""Entries from which on a matrix is lent."""

_READERS = frozenset({("MatMul", 0), ("MatMul", 1), ("Gemm", 0), ("Gemm", 1), ("Gather", 0)})
"""Uses that do not gain by knowing a large matrix beforehand."""


def lend(model: ir.Model) -> Mapping[str, Array]:
    """Turn large matrices that are only multiplied or looked up into inputs of the graph, in place.

    Those in external data stay: onnxruntime reads them itself.

    Returns: what to feed, by name.
    """
    lent: dict[str, Array] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if isinstance(tensor, ir.Tensor) and tensor.size >= LARGE and _is_only_read(value):
            lent[name] = np.ascontiguousarray(tensor.numpy())
            del model.graph.initializers[name]
            value.const_value = None
            value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape)
            model.graph.inputs.append(value)
    return lent


def _is_only_read(value: ir.Value) -> bool:
    if value.is_graph_output() or value.is_graph_input():
        return False
    return all(
        (use.node.op_type, use.idx) in _READERS
        or (use.node.op_type == "Transpose" and _is_only_read(use.node.outputs[0]))
        for use in value.uses()
    )
