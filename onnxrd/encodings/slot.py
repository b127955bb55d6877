"""The place of a weight in its model: the names its parts get, and what the model allows."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxrd.errors import ModelError
from onnxrd.graph.bodies import values_of


@dataclass(frozen=True)
class Slot:
    """Where the decoded weight goes.

    Names are short, since each is in the file at least twice: a weight's parts are called `stem`
    plus a letter or two, what several weights share is called `prefix` plus something.

    Attributes:
        output: name of the value that the consumers of the weight read.
        opset: version of the standard operators; 0 if the model does not import them.
        ir_version: of the model.
        stem: start of the names of this weight's parts, no other name starts so.
        shape: name of the initializer that holds the shape, shared by weights of equal shape.
        prefix: start of all new names, no name of the model starts so.
        inner: this is only a part of a weight: nothing to show in viewers, a shape of its own.
    """

    output: str
    opset: int
    ir_version: int
    stem: str = "q0"
    shape: str = "qs0"
    prefix: str = "q"
    inner: bool = False

    @property
    def has_functions(self) -> bool:
        """Whether the model may define functions; else their nodes are written out each time."""
        return self.ir_version >= 8

    @property
    def lists_initializers(self) -> bool:
        """Whether every initializer must be listed as a graph input, too; it is no less constant.

        Constant nodes would not do: before opset 9 they hold floats only.
        """
        return self.ir_version < 4

    def part(self, role: str) -> "Slot":
        """The slot of a part of the weight that is encoded on its own."""
        name = self.stem + role
        return replace(self, output=name, stem=f"{name}q", inner=True)


def slots(model: ir.Model, weights: Iterable[str]) -> dict[str, Slot]:
    """One slot for each of the weights named (initializers or outputs of Constant nodes).

    Weights of the bodies of If, Loop and Scan are moved to the main graph, under their own name
    where no other value has it.

    Raises:
        ModelError: no such weight, or several that cannot be told apart.
    """
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    taken = Counter(str(value.name) for graph in model.graphs() for value in values_of(graph))
    prefix = "q"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    constants = Constants(model)
    shapes: dict[tuple[int, ...], str] = {}
    result = {}
    for index, name in enumerate(weights):
        shape = tuple(constants.tensor(name).shape.numpy())
        stem = f"{prefix}{index}"
        result[name] = Slot(
            output=name if taken[name] == 1 else f"{stem}w",
            opset=opset,
            ir_version=model.ir_version,
            stem=stem,
            shape=shapes.setdefault(shape, f"{prefix}s{len(shapes)}"),
            prefix=prefix,
        )
    return result


class Constants:
    """The constant tensors of a model by name, wherever they are held."""

    def __init__(self, model: ir.Model) -> None:
        self._main = dict(_constants(model.graph))
        self._inner: dict[str, list[ir.Value]] = {}
        for graph in model.graph.subgraphs():
            for name, value in _constants(graph):
                self._inner.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> ir.Value:
        """The value of that name.

        Raises:
            ModelError: none, or several in subgraphs.
        """
        if name in self._main:
            return self._main[name]
        found = self._inner.get(name, [])
        if len(found) != 1:
            what = "more than one constant" if found else "no constant"
            raise ModelError(f"the model holds {what} named {name!r}. Name another weight.")
        return found[0]

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The tensor of that name."""
        value = self[name]
        if value.const_value is not None:
            return value.const_value
        node = value.producer()
        assert node is not None
        if "value" in node.attributes:
            return node.attributes["value"].as_tensor()
        return ir.tensor(np.array(node.attributes["value_floats"].as_floats(), np.float32))


def _constants(graph: ir.Graph) -> Iterator[tuple[str, ir.Value]]:
    for name, value in graph.initializers.items():
        if value.const_value is not None:
            yield name, value
    for node in graph:
        if is_constant(node, "value") or is_constant(node, "value_floats"):
            yield str(node.outputs[0].name), node.outputs[0]


def is_constant(node: ir.Node, attribute: str) -> bool:
    """Whether a node is a Constant with a value in that attribute."""
    return node.op_type == "Constant" and node.domain == "" and attribute in node.attributes
