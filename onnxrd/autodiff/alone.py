"""Run one operator of the network on its own, to see what it does to arrays of our choice."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.tape import Array
from onnxrd.graph.session import Runtime, Session


def run_alone(
    node: ir.Node,
    opset: int,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, ir.Attr] | None = None,
) -> Array:
    """The first output of an operator for other inputs than it has in the network.

    Args:
        node: the operator.
        opset: of its network.
        inputs: arrays, None where there is none.
        attributes: instead of its own.
    """
    given = [
        None if array is None else ir.val(f"i{k}", const_value=ir.tensor(np.asarray(array)))
        for k, array in enumerate(inputs)
    ]
    y = ir.val("y", ir.DataType.FLOAT)
    own = node.attributes if attributes is None else attributes
    alone = ir.Node(node.domain, node.op_type, given, own.values(), outputs=[y])
    constants = [value for value in given if value is not None]
    imports = {"": opset} | ({node.domain: 1} if node.domain else {})
    graph = ir.Graph([], [y], nodes=[alone], initializers=constants, opset_imports=imports)
    return Session(ir.Model(graph, ir_version=8), runtime=Runtime(threads=1)).run({})["y"]
