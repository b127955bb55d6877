"""Find the weights of a network: what each one is, who uses it, and which are left alone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.errors import ModelError
from onnxrd.graph.folding import bodies_of, independent
from onnxrd.graph.model import Model, unloaded
from onnxrd.graph.uses import (
    COMPRESSIBLE,
    ELEMENTWISE,
    Use,
    channel_axis,
    quantizes,
    role_of,
    uses_of,
)

QUANTIZED = "quantized already"
"""How the reason of a weight that another tool has quantized begins."""

STAYS = "stays as it is"
"""How the reason of a constant begins that is no matrix of a layer."""

SMALLEST = 64
"""Weights with fewer entries are left alone: decoding would cost more bytes than it saves."""

COMPRESSIBLE_TYPES = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant tensor of the model.

    Attributes:
        name: of the initializer, or of the output of the Constant node.
        value: in the prepared graph (`Model.prepared`).
        shape: as stored.
        dtype: as stored.
        role: convolution, linear, embedding, recurrent, normalisation, bias or other.
        channel_axis: the axis of the output channels (rows of an embedding), None if unclear.
        uses: the operators that compute with it; more than one: the weight is tied.
        skip: why it is left alone, empty if it is compressed.
    """

    name: str
    value: ir.Value
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    role: str
    channel_axis: int | None
    uses: tuple[Use, ...]
    skip: str

    @property
    def size(self) -> int:
        """Number of entries."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def tied(self) -> bool:
        """More than one operator computes with it."""
        return len({use.node for use in self.uses}) > 1

    @property
    def floating(self) -> bool:
        """Whether its entries are floating-point numbers, of whatever width."""
        return is_floating(self.value)

    def array(self) -> NDArray[Any]:
        """The entries; those in external data are mapped from there until the caller lets go.

        Raises:
            ModelError: an entry is not a finite number.
        """
        assert self.value.const_value is not None
        array = np.asarray(unloaded(self.value.const_value).numpy())
        if self.floating and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise ModelError(
                f"weight {self.name!r}: {bad} of {array.size} entries are NaN or infinite. "
                "The model is broken: export it again from a sound checkpoint."
            )
        return array


def find_weights(model: Model, prepared: ir.Model | None = None) -> list[Weight]:
    """All constant tensors of a model, in the order of their first use.

    Args:
        model: the model.
        prepared: `model.prepared()`, if the caller has it already and wants its values.

    Returns:
        Those to compress (`skip` empty) and those left alone, each with its reason.
    """
    graph = (prepared or model.prepared()).graph
    alive = _alive(graph)
    weights = [_describe(value, alive) for value in constants(graph)]
    for body in graph.subgraphs():
        inner = [_describe(value, alive) for value in constants(body)]
        reason = "in the body of an If, Loop or Scan, and its name is not unique"
        weights += [replace(w, skip=w.skip or reason) for w in inner]
    order = {node: position for position, node in enumerate(graph.all_nodes())}
    return sorted(weights, key=lambda w: min((order.get(u.node, -1) for u in w.uses), default=-1))


def names_of_weights(model: Model) -> set[str]:
    """Names by which weights are known in any version of a network.

    Those of weights to compress, and of values that are computed from constants to be used as
    weights: a file that was compressed before has these.
    """
    prepared = model.prepared()
    names = {weight.name for weight in find_weights(model, prepared) if not weight.skip}
    return names | {
        str(value.name)
        for value in independent(prepared.graph, shapes=True)
        if any(role_of(Use(*use), ()) in COMPRESSIBLE for use in value.uses())
    }


def constants(graph: ir.Graph) -> Iterator[ir.Value]:
    """The values of a prepared graph that hold a tensor, without those of subgraphs."""
    return (value for value in graph.initializers.values() if value.const_value is not None)


def is_floating(value: ir.Value) -> bool:
    """Whether a constant holds floating-point numbers, of whatever width."""
    return value.const_value is not None and value.const_value.dtype.is_floating_point()


def _describe(value: ir.Value, alive: set[ir.Node]) -> Weight:
    assert value.const_value is not None
    shape = tuple(value.const_value.shape.numpy())
    dtype = np.dtype(value.const_value.dtype.numpy())
    uses = tuple(uses_of(value))
    roles = {use: role_of(use, shape) for use in uses if use.node in alive}
    compressible = [use for use, role in roles.items() if role in COMPRESSIBLE]
    role = min([roles[use] for use in compressible] or [*roles.values()] or ["other"])
    skip = _reason_to_skip(value, shape, role, uses, alive)
    axis = channel_axis(compressible[0], len(shape)) if compressible else None
    return Weight(str(value.name), value, shape, dtype, role, axis, uses, skip)


def _reason_to_skip(
    value: ir.Value, shape: tuple[int, ...], role: str, uses: tuple[Use, ...], alive: set[ir.Node]
) -> str:
    assert value.const_value is not None
    if value.const_value.dtype not in COMPRESSIBLE_TYPES:
        name = value.const_value.dtype.name.lower()
        if is_floating(value):
            return f"{name} is not supported"
        by = [use.node.op_type for use in uses if quantizes(use.node)]
        many = int(np.prod(shape, dtype=np.int64)) >= SMALLEST
        return f"{QUANTIZED}: {name} for {by[0]}" if by and many else f"{name}, not floating point"
    if value.is_graph_output():
        return "is itself an output of the model"
    if not any(use.node in alive for use in uses):
        return "no path to the output"
    if role not in COMPRESSIBLE:
        stays = role if role in ("bias", "normalisation") else f"no weight, but {role}"
        return f"{STAYS}: {stays}"
    if int(np.prod(shape, dtype=np.int64)) < SMALLEST:
        return f"too small: fewer than {SMALLEST} entries"
    if any(use.node.op_type in ELEMENTWISE for use in uses) and _masks(value.const_value):
        return f"{STAYS}: no weight, but a mask with infinite entries"
    return ""


def _masks(tensor: ir.TensorProtocol) -> bool:
    """Whether a constant has infinite entries, as one that hides positions from a softmax."""
    return bool(np.isneginf(unloaded(tensor).numpy().astype(np.float64)).any())


def _alive(graph: ir.Graph) -> set[ir.Node]:
    """The nodes on a path to an output (a node with a subgraph counts for all within it)."""
    alive: set[ir.Node] = set()
    stack = [v.producer() for v in graph.outputs]
    while stack:
        node = stack.pop()
        if node is None or node in alive:
            continue
        alive.add(node)
        stack.extend(v.producer() for v in node.inputs if v is not None)
        for inner in bodies_of(node):
            for n in inner.all_nodes():
                alive.add(n)
                stack.extend(v.producer() for v in n.inputs if v is not None)
    return alive
