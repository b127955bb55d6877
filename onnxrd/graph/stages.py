"""Walk through a network stage by stage, so that weights may change on the way.

A stage computes some values that are asked for (the inputs of a few layers) from what the stages
before it left behind. Whoever walks looks at these values, decides what the layers' weights become,
and goes on with the new weights. A whole walk costs one forward pass.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.graph.folding import bodies_of
from onnxrd.graph.session import DEFAULT, Runtime, Session

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Stage:
    """One piece of a network.

    Attributes:
        model: computes the outputs from the inputs and the weights among its initializers; None
            where all that is asked for is there already.
        taps: names of the values that were asked for.
        dead: names of the values that no later stage reads.
    """

    model: ir.Model | None
    taps: tuple[str, ...]
    dead: tuple[str, ...]


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads: its inputs, and what its subgraphs read (within them and outside)."""
    yield from (value for value in node.inputs if value is not None)
    for graph in bodies_of(node):
        for inner in graph.all_nodes():
            yield from (value for value in inner.inputs if value is not None)


def cut(model: ir.Model, taps: Sequence[Sequence[str]]) -> list[Stage]:
    """Cut a network into stages.

    Args:
        model: prepared graph; its weights are shared with the stages.
        taps: for each stage the names of the values it must deliver, computed values or inputs
            of the graph; none of them may depend on values of a later stage.
    """
    main = {v.name: v for node in model.graph for v in node.outputs}
    main |= {v.name: v for v in model.graph.inputs if v.name not in model.graph.initializers}
    order = {node: position for position, node in enumerate(model.graph)}
    done: set[ir.Node] = set()
    pieces = []
    for names in taps:
        wanted = [main[name] for name in names]
        nodes = sorted(_missing(wanted, order.keys() - done), key=order.__getitem__)
        done.update(nodes)
        pieces.append((wanted, nodes))
    last_read: dict[ir.Value, int] = {}
    for number, (wanted, nodes) in enumerate(pieces):
        for value in (*wanted, *(v for node in nodes for v in reads(node))):
            if main.get(value.name) is value:
                last_read[value] = number
    stages = []
    alive = {v for v in model.graph.inputs if v in last_read}
    for number, (wanted, nodes) in enumerate(pieces):
        read = {v for node in nodes for v in reads(node)}
        made = {v for node in nodes for v in node.outputs if v in last_read}
        outputs = [v for v in last_read if v in made]
        inputs = [v for v in last_read if v in alive and v in read]
        alive |= made
        dead = {v for v in alive if last_read[v] <= number}
        alive -= dead
        stages.append(
            Stage(
                extract(model, inputs, outputs) if outputs else None,
                tuple(str(v.name) for v in wanted),
                tuple(str(v.name) for v in last_read if v in dead),
            )
        )
    return stages


def _missing(wanted: Sequence[ir.Value], left: Collection[ir.Node]) -> set[ir.Node]:
    """The nodes that compute the wanted values, of those left; bodies go with their node."""
    nodes: set[ir.Node] = set()
    stack = list(wanted)
    while stack:
        node = stack.pop().producer()
        if node is not None and node in left and node not in nodes:
            nodes.add(node)
            stack.extend(reads(node))
    return nodes


def extract(model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
    """The part of a network that computes some of its values from others."""
    graph = ir.convenience.extract(model.graph, list(inputs), list(outputs))
    return ir.Model(graph, ir_version=model.ir_version, functions=list(model.functions.values()))


class Walk:
    """One walk through the stages with all batches side by side.

    Args:
        stages: of the network.
        base: folder of its external data.
        batches: feeds of each batch.
        runtime: how sessions run.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        base: Path,
        batches: Sequence[Mapping[str, Array]],
        runtime: Runtime = DEFAULT,
    ) -> None:
        self._stages, self._base, self._runtime = iter(stages), base, runtime
        self._alive: list[dict[str, Any]] = [dict(feeds) for feeds in batches]

    @property
    def alive(self) -> Sequence[Mapping[str, Any]]:
        """What the stages so far have left for the later ones, of each batch."""
        return self._alive

    def advance(self, weights: Mapping[str, Array]) -> list[dict[str, Array]]:
        """Run the next stage on every batch.

        Args:
            weights: what initializers hold instead of their own values, by name.

        Returns: the values asked for, of each batch.
        """
        stage = next(self._stages)
        if stage.model is not None:
            model = ready(stage.model, weights, self._alive[0])
            session = Session(model, base=self._base, runtime=self._runtime)
            for alive in self._alive:
                alive |= session.run_values({name: alive[name] for name in session.inputs})
        taps = [{n: _as_array(alive[n]) for n in stage.taps} for alive in self._alive]
        for alive in self._alive:
            for name in stage.dead:
                del alive[name]
        return taps


def _as_array(value: Any) -> Array:
    return value if isinstance(value, np.ndarray) else np.asarray(value.numpy())


def ready(model: ir.Model, weights: Mapping[str, Array], fed: Mapping[str, Any]) -> ir.Model:
    """A copy that holds the weights, its inputs of the type and rank of the values to be fed.

    Args:
        model: of a stage.
        weights: what initializers hold instead of their own values, by name.
        fed: arrays or values in onnxruntime's memory, at least of the inputs.
    """
    copy = model.clone()
    for value in copy.graph.inputs:
        given = fed[str(value.name)]
        known = isinstance(given, np.ndarray)
        dtype = ir.DataType.from_numpy(given.dtype) if known else ir.DataType(given.element_type())
        rank = given.ndim if known else len(given.shape())
        value.type, value.shape = ir.TensorType(dtype), ir.Shape([None] * rank)
    for name in copy.graph.initializers:
        if name in weights:
            copy.graph.initializers[name].const_value = ir.tensor(weights[name], name=name)
    return copy
