"""The weights of any version of a network as numbers, whatever tool wrote it and however.

A weight is found by its name, where the graph computes it from constants (as ours do) or holds it
as it was; by the names that onnxruntime's quantization gives to its parts; or by what computes
with it: the operator of the same name, with the same output, or at the same place among those of
its kind.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.graph.folding import constants_of, fold, independent
from onnxrd.graph.model import Model
from onnxrd.graph.uses import Use
from onnxrd.graph.weights import Weight

Array = NDArray[Any]

AT_ONCE = 1 << 28
"""Bytes of weights that one run computes, roughly."""

_BLOCKWISE = "MatMulNBits"
_TRANSPOSED = "_Transposed"  # onnxruntime's dynamic quantization makes a MatMul of a Gemm


@dataclass(frozen=True, eq=False)
class Stored:
    """A weight as a version of its network has it.

    Attributes:
        weight: of the original.
        array: [*weight]; None if that version has none.
        constants: what it is computed from: name → bytes. Several weights may share some.
    """

    weight: Weight
    array: Array | None
    constants: Mapping[str, int]


def stored_weights(version: Model, weights: Iterable[Weight]) -> Iterator[Stored]:
    """Read the weights of a network from another version of its file, some at a time.

    Args:
        version: the compressed model, say.
        weights: of the original (`find_weights`).

    Raises:
        ModelError: what computes a weight cannot be run.
    """
    finder = _Finder(version)
    group: list[tuple[Weight, list[_Place]]] = []
    size = 0
    for weight in weights:
        group.append((weight, list(finder.places(weight))))
        size += 4 * weight.size
        if size > AT_ONCE:
            yield from finder.read(group)
            group, size = [], 0
    yield from finder.read(group)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a weight may be: a value, or a quantized one with its scale and zero point."""

    parts: tuple[ir.Value, ...]
    transposed: bool = False

    def read(self, arrays: Mapping[ir.Value, Array], weight: Weight) -> Array | None:
        """The weight, of what its parts hold; None if it is another."""
        if not arrays.keys() >= {*self.parts}:
            return None
        array, *rest = (arrays[part] for part in self.parts)
        array = array.T if self.transposed else array
        if array.shape != weight.shape:
            return None
        if not rest:
            return array
        along = [1] * array.ndim
        if rest[0].size > 1:
            if weight.channel_axis is None:
                return None
            along[weight.channel_axis] = rest[0].size
        scale, zero = (part.reshape(along).astype(np.float64) for part in rest)
        return np.asarray(((array - zero) * scale).astype(np.float32))


class _Finder:
    def __init__(self, model: Model) -> None:
        self._prepared, self._base = model.prepared(), model.path.parent
        graph = self._prepared.graph
        self._constant = independent(graph, shapes=True, branches=True)
        self._values = {
            str(v.name): v for inner in graph.subgraphs() for v in inner.initializers.values()
        }
        self._values |= {str(value.name): value for value in self._constant}
        self._kinds = _by_kind(graph)
        self._named = {(n.op_type, n.name): n for n in graph if n.name}
        self._made: set[ir.Value] = set()
        self._making = {v.name: n for n in graph for v in n.outputs if v.name}

    def places(self, weight: Weight) -> Iterator[_Place]:
        """Where to look for a weight, the likeliest place first."""
        for suffix in ("", _TRANSPOSED):
            name = weight.name + suffix
            if name in self._values:
                yield _Place((self._values[name],), bool(suffix))
            parts = [f"{name}_{part}" for part in ("quantized", "scale", "zero_point")]
            if all(part in self._values for part in parts):
                yield _Place(tuple(self._values[part] for part in parts), bool(suffix))
        for use in weight.uses:
            value = self._used(use)
            if value in self._constant:
                yield _Place((value,))

    def read(self, group: Sequence[tuple[Weight, list[_Place]]]) -> Iterator[Stored]:
        """The weights of a group, all that may be needed computed together."""
        parts = [part for _, places in group for place in places[:1] for part in place.parts]
        arrays = fold(self._prepared, parts, self._base)
        for weight, places in group:
            yield self._read(weight, places, arrays)

    def _read(
        self, weight: Weight, places: Sequence[_Place], arrays: Mapping[ir.Value, Array]
    ) -> Stored:
        for place in places:
            there = arrays.keys() >= {*place.parts}
            known = arrays if there else fold(self._prepared, place.parts, self._base)
            array = place.read(known, weight)
            if array is not None and array.dtype.kind not in "iub":
                constants = {c for part in place.parts for c in constants_of(part)} - self._made
                return Stored(weight, array, {str(c.name): _nbytes(c) for c in constants})
        return Stored(weight, None, {})

    def _used(self, use: Use) -> ir.Value | None:
        """What the operator that corresponds to a weight's use computes with."""
        node = self._alike(use.node)
        if node is None or use.slot >= len(node.inputs):
            return None
        if node.op_type == _BLOCKWISE:
            return self._unpacked(node) if use.slot == 1 and not use.moved else None
        value = node.inputs[use.slot]
        for moved in reversed(use.moved):
            producer = None if value is None else value.producer()
            if producer is None or producer.op_type != moved.op_type:
                break
            value = producer.inputs[0]
        return value

    def _alike(self, node: ir.Node) -> ir.Node | None:
        op, name = node.op_type, node.name or ""
        if (op, name) in self._named:
            return self._named[op, name]
        made = self._making.get(str(node.outputs[0].name))
        if made is not None and made.op_type in (op, _BLOCKWISE):
            return made
        if not isinstance(node.graph, ir.Graph):
            return None
        here, there = self._kinds[op], _by_kind(node.graph)[op]
        return here[there.index(node)] if len(here) == len(there) else None

    def _unpacked(self, node: ir.Node) -> ir.Value | None:
        """A constant that is what MatMulNBits multiplies with: its product with the identity."""
        if not all(v is None or v in self._constant for v in node.inputs[1:]):
            return None
        size = node.attributes["K"].as_int()
        eye = ir.val(f"{node.outputs[0].name}:1", const_value=ir.tensor(np.eye(size, dtype="f4")))
        attributes, inputs = node.attributes.values(), [eye, *node.inputs[1:5]]
        product = ir.Node(node.domain, node.op_type, inputs, attributes, num_outputs=1)
        product.outputs[0].name = f"{node.outputs[0].name}:w"
        product.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        self._prepared.graph.register_initializer(eye)
        self._prepared.graph.append(product)
        self._made.add(eye)
        self._constant.add(product.outputs[0])
        return product.outputs[0]


def _by_kind(graph: ir.Graph) -> dict[str, list[ir.Node]]:
    kinds: dict[str, list[ir.Node]] = defaultdict(list)
    for node in graph:
        kinds[node.op_type].append(node)
    return kinds


def _nbytes(value: ir.Value) -> int:
    return 0 if value.const_value is None else int(value.const_value.nbytes)
