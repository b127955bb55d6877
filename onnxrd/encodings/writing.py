"""Put fragments into a model, and the exact size of the file that comes of it."""

from collections.abc import Iterable, Mapping

import onnx
import onnx_ir as ir

from onnxrd.encodings import wire
from onnxrd.encodings.fragment import Fragment, Steps
from onnxrd.encodings.slot import Constants, Slot, is_constant
from onnxrd.errors import ModelError


class FileSize:
    """Bytes of the file of a model, as a function of how its weights are encoded.

    `FileSize(model, slots)(fragments)` is the size, to the byte, of what `onnx_ir.save` writes
    after `write(model, fragments)`. Adding up prices is all it does, so it can be asked often.

    Args:
        model: with its weights as they were; not changed.
        slots: of all the weights that will be written, by name.
    """

    def __init__(self, model: ir.Model, slots: Mapping[str, Slot]) -> None:
        bare = model.clone()
        constants = Constants(bare)
        for name, slot in slots.items():
            _detach(bare, constants[name]).name = slot.output
        drop_repetitions(bare)
        proto = ir.to_proto(bare)
        self._graph = proto.graph.ByteSize()
        proto.ClearField("graph")
        self._outside = proto.ByteSize()
        self._present = {_key(function) for function in bare.functions.values()}
        self._present |= set(bare.opset_imports)

    def __call__(self, fragments: Iterable[Fragment]) -> int:
        """The size with one fragment for each of the slots."""
        inside, outside = self._graph, self._outside
        seen = set(self._present)
        for fragment in fragments:
            inside += fragment.nbytes
            for key, nbytes in fragment.shared_nbytes.items():
                if key in seen:
                    continue
                seen.add(key)
                if isinstance(fragment.shared[key], (ir.TensorProtocol, Steps)):
                    inside += nbytes
                else:
                    outside += nbytes
        return wire.model_nbytes(outside, inside)


def write(model: ir.Model, fragments: Mapping[str, Fragment]) -> None:
    """Replace weights by what decodes to them, in place.

    A weight's initializer or Constant node goes away, from the graph inputs too. A value of the
    same name takes its place at the start of the main graph, so that its consumers stay as they
    are. Annotations that only repeat what a tensor says itself are dropped, see `drop_repetitions`.

    Args:
        model: a copy of the original, from which the slots of the fragments were made.
        fragments: name of the weight → fragment.

    Raises:
        ModelError: no such weight, or it cannot be replaced.
    """
    constants = Constants(model)
    weights = {name: _detach(model, constants[name]) for name in fragments}
    values: dict[str, ir.Value] = {}
    nodes: list[ir.Node] = []
    written: set[str] = set()
    _add_shared(model, fragments.values(), values)
    for fragment in fragments.values():
        for name, tensor in fragment.tensors.items():
            values[name] = _add_tensor(model, name, tensor, listed=fragment.listed)
        for name, part in fragment.shared.items():
            if isinstance(part, Steps) and name not in written:
                written.add(name)
                nodes += _nodes(part.nodes, values)
                _describe(part, values)
        nodes += _nodes(fragment.nodes, values)
    for name, fragment in fragments.items():
        _replace(weights[name], values[fragment.output])
    if len(model.graph):
        model.graph.insert_before(model.graph[0], nodes)
    else:
        model.graph.extend(nodes)
    drop_repetitions(model)


def drop_repetitions(model: ir.Model) -> None:
    """Forget what only repeats, in other words, what a tensor says itself, in place.

    `onnx_ir` gives every initializer a value_info with the shape and type that its tensor has
    anyway (some 35 bytes each, which the original file mostly lacks), and tensors in Constant
    nodes often repeat the name of the node's output (which a clone's tensors share with those of
    the original).
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            if not (value.is_graph_input() or value.is_graph_output()):
                value.type = value.shape = None
        for node in graph:
            if is_constant(node, "value"):
                node.attributes["value"].as_tensor().name = None


def _detach(model: ir.Model, value: ir.Value) -> ir.Value:
    """Take a weight out of the graph; its consumers keep a value that nothing provides."""
    node = value.producer()
    if value.is_graph_output() and (node.graph if node else value.graph) is not model.graph:
        raise ModelError(f"weight {value.name!r} is itself an output of a subgraph. Exclude it.")
    if node is not None:
        assert node.graph is not None
        node.graph.remove(node)
        return value
    graph = value.graph
    assert graph is not None
    del graph.initializers[str(value.name)]
    if value.is_graph_input():
        graph.inputs.remove(value)
    return value


def _replace(old: ir.Value, new: ir.Value) -> None:
    if old.is_graph_output():
        new.type, new.shape = old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _add_shared(
    model: ir.Model, fragments: Iterable[Fragment], values: dict[str, ir.Value]
) -> None:
    once = {name: (part, f.listed) for f in fragments for name, part in f.shared.items()}
    for name, (part, listed) in once.items():
        if isinstance(part, onnx.OperatorSetIdProto):
            model.opset_imports[part.domain] = part.version
        elif isinstance(part, onnx.FunctionProto):
            _add_function(model, part)
        elif not isinstance(part, Steps):
            values[name] = _add_tensor(model, name, part, listed=listed)


def _add_function(model: ir.Model, proto: onnx.FunctionProto) -> None:
    function = ir.serde.deserialize_function(proto)
    present = model.functions.setdefault(function.identifier(), function)
    if present is not function and ir.to_proto(present) != proto:
        raise ModelError(
            f"the model has another function {_key(function)}: it was compressed by another "
            "version before. Compress the original."
        )


def _add_tensor(model: ir.Model, name: str, tensor: ir.TensorProtocol, *, listed: bool) -> ir.Value:
    value = wire.described(name, tensor)
    value.const_value = tensor
    model.graph.register_initializer(value)
    if listed:
        model.graph.inputs.append(value)
    return value


def _nodes(protos: Iterable[onnx.NodeProto], values: dict[str, ir.Value]) -> list[ir.Node]:
    """Nodes that read the values known so far, to which their outputs are added."""
    nodes = []
    for proto in protos:
        nodes.append(_node(proto, values))
        values |= {str(value.name): value for value in nodes[-1].outputs}
    return nodes


def _describe(steps: Steps, values: Mapping[str, ir.Value]) -> None:
    for described in steps.values:
        value = values[str(described.name)]
        value.type, value.shape = described.type, described.shape


def _node(proto: onnx.NodeProto, values: Mapping[str, ir.Value]) -> ir.Node:
    return ir.Node(
        proto.domain,
        proto.op_type,
        [values[name] for name in proto.input],
        [ir.serde.deserialize_attribute(attribute) for attribute in proto.attribute],
        outputs=[ir.Value(name=name) for name in proto.output],
        name="",
        metadata_props={entry.key: entry.value for entry in proto.metadata_props},
    )


def _key(function: ir.Function) -> str:
    return f"{function.domain}::{function.name}"
