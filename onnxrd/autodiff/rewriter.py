"""Decompositions under construction: operators that go into the network itself."""

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.builder import Builder
from onnxrd.autodiff.trace import Trace


class Rewriter(Builder):
    """Builds what shall stand in the network instead of one of its operators.

    Operators are of the network's own opset, and Python floats of the operator's own type.

    Attributes:
        node: the operator.
        nodes: what was written so far.
    """

    def __init__(self, trace: Trace, node: ir.Node) -> None:
        floats = (v for v in node.inputs if v is not None and trace.is_float(v))
        dtype = next((trace.dtypes[value] for value in floats), np.dtype(np.float32))
        name = next(str(value.name) for value in node.outputs if value.name)
        super().__init__(trace, trace.model.graph, dtype, f"{name}/")
        self.node = node
        self.nodes: list[ir.Node] = []

    def _append(self, node: ir.Node) -> None:
        self.nodes.append(node)

    def input(self, slot: int) -> ir.Value | None:
        """An input of the operator, None where there is none."""
        return self.node.inputs[slot] if slot < len(self.node.inputs) else None
