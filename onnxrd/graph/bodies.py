"""Constants in the bodies of If, Loop and Scan."""

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir


def lift_from_bodies(model: ir.Model) -> None:
    """Move the initializers of bodies to the main graph, under their own names, in place.

    Those that share their name with another value stay where they are (two branches may each have
    a value of one name), and so do those that are themselves what a body gives.
    """
    taken = Counter(value.name for graph in model.graphs() for value in values_of(graph))
    for graph in list(model.graph.subgraphs()):
        for name, value in list(graph.initializers.items()):
            if taken[name] == 1 and not (value.is_graph_input() or value.is_graph_output()):
                del graph.initializers[name]
                model.graph.register_initializer(value)


def values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """All values that a graph makes or is given, each once."""
    inputs = dict.fromkeys(graph.inputs)
    yield from inputs
    yield from (value for value in graph.initializers.values() if value not in inputs)
    for node in graph:
        yield from node.outputs
