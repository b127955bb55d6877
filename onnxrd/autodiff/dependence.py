"""What in a graph depends on what, as far as derivatives are concerned."""

from collections.abc import Sequence

import onnx_ir as ir

from onnxrd.autodiff.tape import Tape
from onnxrd.graph.folding import bodies_of

_QUANTIZES = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})


def depending_on(graph: ir.Graph, targets: Sequence[ir.Value], tape: Tape) -> set[ir.Value]:
    """All values that change smoothly with a target, the targets among them.

    Integers do not, and end the search, except those that stand for real numbers: what follows
    them has no rule, and the weights before it are reported as blocked.
    """
    upstream = set(targets)
    for node in graph:
        before = [value for value in (*node.inputs, *captured_by(node)) if value in upstream]
        if not before:
            continue
        smooth = node.op_type in _QUANTIZES or not all(map(tape.is_float, before))
        upstream.update(v for v in node.outputs if v.name and (smooth or tape.is_float(v)))
    return upstream


def captured_by(node: ir.Node) -> list[ir.Value]:
    """Values of the graph that the subgraphs of a node read (and values within them)."""
    return [
        v for body in bodies_of(node) for n in body.all_nodes() for v in n.inputs if v is not None
    ]
