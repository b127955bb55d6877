"""A network without what no runtime needs: long names, notes, and what follows from the rest."""

from collections.abc import Collection, Iterable, Iterator
from itertools import chain, count, product
from string import ascii_letters, digits

import onnx_ir as ir

from onnxrd.graph.bodies import values_of
from onnxrd.graph.defaults import drop_defaults
from onnxrd.graph.foretold import forget_foretold
from onnxrd.graph.settle import settle

_FIRST = ascii_letters.replace("q", "")  # names of what is added begin with q, see `Slot.prefix`
_ANNOTATION = "quant_parameter_tensor_names"  # where `onnx_ir` keeps what annotations refer to


def lean(model: ir.Model, keep: Collection[str]) -> dict[str, str]:
    """Drop what no runtime needs, in place.

    Nodes lose names, doc strings and metadata, graphs their metadata. Values that are computed
    lose types and shapes that follow from what a node reads. But in functions, constants are made
    small (`settle`), attributes that are an operator's default go, and inner values and
    initializers get short names. What the model says about itself, its inputs and outputs stay.

    Args:
        model: a copy, of which names and notes change.
        keep: names that stay, such as those of weights.

    Returns:
        What the constants of the main graph are called now, by the names that they had.
    """
    settle(model, keep)
    graphs = list(model.graphs())
    functions = model.functions.values()
    bodies = chain.from_iterable(function.subgraphs() for function in functions)
    scopes: list[ir.Graph | ir.Function] = [*graphs, *functions, *bodies]
    forget_foretold(model, scopes)
    for scope in scopes:
        scope.metadata_props.clear()
        for node in scope:
            _strip(node)
    for graph in graphs:
        graph.doc_string = graph.doc_string if graph is model.graph else None
        for node in graph:
            drop_defaults(node, model.opset_imports)
    for function in functions:
        function.doc_string = None
    held = list(model.graph.initializers.items())
    _rename(graphs, keep)
    return {name: str(value.name) for name, value in held}


def _strip(node: ir.Node) -> None:
    node.name, node.doc_string = "", None  # without any, a clone of the graph would make one up
    node.metadata_props.clear()
    for value in node.outputs:
        value.doc_string = None
        value.metadata_props.clear()
    for name, attribute in list(node.attributes.items()):
        if attribute.doc_string:
            node.attributes[name] = ir.Attr(
                name, attribute.type, attribute.value, attribute.ref_attr_name
            )


def _rename(graphs: Iterable[ir.Graph], keep: Collection[str]) -> None:
    """Short names that are unique in all graphs: bodies read values of the graphs around them."""
    main, *_ = graphs
    values = [value for graph in graphs for value in values_of(graph) if value.name]
    kept = {*keep, *(value.name for value in (*main.inputs, *main.outputs))}
    kept.update(name for value in values for name in value.meta.get(_ANNOTATION, {}).values())
    names = (name for name in _short_names() if name not in kept)
    held = [(graph, list(graph.initializers.values())) for graph in graphs]
    for graph, _ in held:
        graph.initializers.clear()  # by name: while all change, two may have the same
    for value in values:
        if value.name not in kept:
            value.name = next(names)
    for graph, initializers in held:
        for value in initializers:
            graph.register_initializer(value)


def _short_names() -> Iterator[str]:
    """One letter, then two, and so on."""
    for length in count():
        for letters in product(_FIRST, *[ascii_letters + digits] * length):
            yield "".join(letters)
