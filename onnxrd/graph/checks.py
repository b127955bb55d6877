"""Is this a model at all? What hostile or damaged files get wrong, found before anything trusts it.

Everything here looks at protobuf messages, whose nesting protobuf itself limits to 100 levels.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from math import ceil, prod
from typing import TypeVar

import onnx
import onnx_ir

from onnxrd.errors import ModelError

K = TypeVar("K", bound=Hashable)
FunctionKey = tuple[str, str, str]

MOST_NODES = 1 << 18
"""Nodes that a model may come to when its functions are inlined: a few of them can call on 2^60."""

_TYPED_DATA = (
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "double_data",
    "uint64_data",
)


def check(proto: onnx.ModelProto) -> None:
    """Check that tensors, attributes and the order of computation make sense.

    Raises:
        ModelError: they do not; the message does not name the file.
    """
    imports = _versions(proto.opset_import)
    for graph in _graphs([proto.graph]):
        for tensor in graph.initializer:
            _check_tensor(tensor, f"weight {tensor.name!r}")
        if graph.sparse_initializer:
            raise ModelError("sparse initializers are not supported. Export dense ones.")
        _check_nodes(graph.node, imports)
    _check_origins(proto.graph)
    for function in proto.functions:
        versions = imports | _versions(function.opset_import)
        _check_nodes(function.node, versions)
        for graph in _graphs(_bodies(function.node)):
            _check_nodes(graph.node, versions)
    _check_functions(proto)


def _broken(what: str) -> ModelError:
    return ModelError(f"{what}. The file is damaged: copy it or export it again.")


def _versions(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    versions = {entry.domain: entry.version for entry in imports}
    for domain, version in versions.items():
        if not 0 < version < 2**31:
            raise _broken(f"it asks for version {version} of the operators {domain!r}")
    return versions


def _check_origins(graph: onnx.GraphProto) -> None:
    """That all values come from somewhere."""
    known = {value.name for value in (*graph.input, *graph.initializer)}
    known |= {name for node in graph.node for name in node.output}
    read = {name for node in graph.node for name in _reads(node)}
    for name in sorted(read | {value.name for value in graph.output}):
        if name not in known:
            raise _broken(f"nothing computes the value {name!r}, which is needed")


def _check_nodes(nodes: Iterable[onnx.NodeProto], imports: Mapping[str, int]) -> None:
    """Of one graph or function, without the bodies that they hold."""
    nodes = list(nodes)
    producers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        _check_attributes(node, imports.get(node.domain, 1))
        for name in filter(None, node.output):
            if producers.setdefault(name, index) != index:
                raise _broken(f"the value {name!r} is computed twice")
    reads = {
        index: {producers[name] for name in _reads(node) if name in producers}
        for index, node in enumerate(nodes)
    }
    if in_order(reads) is None:
        raise _broken("the computation goes in circles: a value depends on itself")


def _check_attributes(node: onnx.NodeProto, version: int) -> None:
    where = f"{node.op_type or 'a node without an operator'} {node.name}".strip()
    expected = _expected_types(node, version)
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) < len(names) or "" in names:
        raise _broken(f"attributes of {where} have no name, or the same one")
    for attribute in node.attribute:
        kind = onnx.AttributeProto.AttributeType.Name(attribute.type)
        if kind != expected.get(attribute.name, kind) or not attribute.type:
            raise _broken(f"attribute {attribute.name!r} of {where} is of the wrong type")
        for tensor in (*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors):
            _check_tensor(tensor, f"attribute {attribute.name!r} of {where}")


def _expected_types(node: onnx.NodeProto, version: int) -> dict[str, str]:
    """What the standard says about a node's attributes; nothing about operators it lacks."""
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return {}
    return {
        name: str(attribute.type).rpartition(".")[2]
        for name, attribute in schema.attributes.items()
    }


def _check_tensor(tensor: onnx.TensorProto, where: str) -> None:
    """Of a size that its data have; nothing is read."""
    try:
        dtype = onnx_ir.DataType(tensor.data_type)
    except ValueError:
        dtype = onnx_ir.DataType.UNDEFINED
    if dtype == onnx_ir.DataType.UNDEFINED:
        raise _broken(f"{where} has no element type")
    if any(length < 0 for length in tensor.dims):
        raise _broken(f"{where} has a negative length: {list(tensor.dims)}")
    entries = prod(tensor.dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        _check_external({entry.key: entry.value for entry in tensor.external_data}, where)
        return
    held = [name for name in _TYPED_DATA if getattr(tensor, name)]
    if dtype == onnx_ir.DataType.STRING:
        right = len(tensor.string_data) == entries
    elif tensor.HasField("raw_data"):
        right = len(tensor.raw_data) == ceil(entries * dtype.bitwidth / 8) and not held
    else:
        count = sum(len(getattr(tensor, name)) for name in held)
        right = len(held) <= 1 and count in _counts(entries, dtype)
    if not right:
        raise _broken(f"{where} of shape {list(tensor.dims)} holds more or less than that")


def _check_external(entries: Mapping[str, str], where: str) -> None:
    """Of numbers that are some; they are compared with the file later."""
    if "location" not in entries:
        raise _broken(f"{where} does not say which file its data are in")
    for key in ("offset", "length"):
        if not entries.get(key, "0").isdecimal():
            raise _broken(f"{where} has its data at {key} {entries[key]!r}")


def _counts(entries: int, dtype: onnx_ir.DataType) -> set[int]:
    """How many numbers a typed field holds; types of less than a byte are packed, or are not."""
    if dtype in (onnx_ir.DataType.COMPLEX64, onnx_ir.DataType.COMPLEX128):
        return {2 * entries}
    return {entries, ceil(entries * min(dtype.bitwidth, 8) / 8)}


def _check_functions(proto: onnx.ModelProto) -> None:
    """That they end, and do not come to an absurd number of nodes."""
    bodies = {_key(f.domain, f.name, f.overload): _all_nodes(f.node) for f in proto.functions}
    calls = {
        key: [call for node in nodes if (call := _called(node)) in bodies]
        for key, nodes in bodies.items()
    }
    order = in_order({key: set(called) for key, called in calls.items()})
    if order is None:
        raise _broken("its functions call each other in circles")
    sizes: dict[FunctionKey, int] = {}
    for key in order:
        sizes[key] = len(bodies[key]) + sum(sizes[call] for call in calls[key])
    nodes = _all_nodes(proto.graph.node)
    if sum(sizes.get(_called(node), 1) for node in nodes) > MOST_NODES:
        raise _broken(f"its functions come to more than {MOST_NODES} nodes")


def in_order(depends: Mapping[K, set[K]]) -> list[K] | None:
    """Every key after the ones it depends on; None if they go in circles."""
    waiting = {key: len(others) for key, others in depends.items()}
    needed_by: dict[K, list[K]] = {}
    for key, others in depends.items():
        for other in others:
            needed_by.setdefault(other, []).append(key)
    ready = [key for key, count in waiting.items() if not count]
    for key in ready:  # grows on the way
        for other in needed_by.get(key, ()):
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    return ready if len(ready) == len(depends) else None


def _key(domain: str, name: str, overload: str) -> FunctionKey:
    return ("" if domain == "ai.onnx" else domain, name, overload)


def _called(node: onnx.NodeProto) -> FunctionKey:
    return _key(node.domain, node.op_type, node.overload)


def _bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _graphs(graphs: Iterable[onnx.GraphProto]) -> Iterator[onnx.GraphProto]:
    """These, and all within them."""
    for graph in graphs:
        yield graph
        yield from _graphs(_bodies(graph.node))


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    nodes = list(nodes)
    return nodes + [node for graph in _graphs(_bodies(nodes)) for node in graph.node]


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the values that a node needs, its bodies included."""
    yield from filter(None, node.input)
    for graph in _bodies([node]):
        own = {value.name for value in (*graph.input, *graph.initializer)}
        own |= {name for inner in graph.node for name in inner.output}
        read = {name for inner in graph.node for name in _reads(inner)}
        yield from (read | {value.name for value in graph.output}) - own
