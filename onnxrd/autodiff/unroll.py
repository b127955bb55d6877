"""Do without If, Loop and Scan: their bodies are written into the network, once for each time.

For the shapes of a trace: a condition or a number of iterations that the data decide stays as it
is, and so does what would take too many operators.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_int, get_ints
from onnxrd.autodiff.registry import NoRuleError
from onnxrd.autodiff.trace import Array, Trace

MOST_OPERATORS = 20_000
"""That may be written for one operator."""


def unroll(trace: Trace, node: ir.Node) -> bool:
    """Replace an If, Loop or Scan of a traced network's main graph by what it does, in place.

    Returns: whether it was; the trace says nothing about the network any more then.
    """
    write = _WRITERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if write is None:
        return False
    writer = _Writer(trace, node)
    try:
        results = write(writer)
    except NoRuleError:
        return False
    writer.close(results)
    return True


def why_not_unrolled(trace: Trace, node: ir.Node) -> str:
    """What keeps an If, Loop or Scan from being unrolled, empty if nothing does."""
    try:
        if node.op_type == "If":
            _condition(trace, node)
        elif node.op_type == "Loop":
            _iterations(trace, node)
        elif node.op_type == "Scan":
            _check_scan(trace, node)
    except NoRuleError as reason:
        return str(reason)
    return "" if node.op_type in _WRITERS else "it has a subgraph"


class _Writer:
    """Collects the operators that stand for one node."""

    def __init__(self, trace: Trace, node: ir.Node) -> None:
        self.trace, self.node = trace, node
        self._nodes: list[ir.Node] = []
        self._initializers: list[ir.Value] = []
        self._prefix = f"{next(str(v.name) for v in node.outputs if v.name)}/"
        self._copies = 0

    def op(
        self, op_type: str, *inputs: ir.Value, outputs: int = 1, **attributes: int | list[int]
    ) -> list[ir.Value]:
        """Append an operator."""
        made = [ir.Value(name=self._name()) for _ in range(outputs)]
        self._nodes.append(ir.node(op_type, inputs, attributes, outputs=made))
        return made

    def const(self, array: Array) -> ir.Value:
        """A constant."""
        value = ir.Value(name=self._name(), const_value=ir.tensor(array))
        self._initializers.append(value)
        return value

    def reshaped(self, op_type: str, x: ir.Value, axis: int) -> ir.Value:
        """Squeeze or Unsqueeze, as the opset of the network writes them."""
        if self.trace.opset < 13:
            return self.op(op_type, x, axes=[axis])[0]
        return self.op(op_type, x, self.const(np.array([axis])))[0]

    def parts(self, x: ir.Value, axis: int, count: int) -> list[ir.Value]:
        """The entries of `x` along an axis."""
        extra = {"num_outputs": count} if self.trace.opset >= 18 else {}
        split = self.op("Split", x, outputs=count, axis=axis, **extra)
        return [self.reshaped("Squeeze", part, axis) for part in split]

    def stacked(self, parts: Sequence[ir.Value], axis: int) -> ir.Value:
        """The reverse of `parts`."""
        if not parts:
            raise NoRuleError("it runs not once")
        wide = [self.reshaped("Unsqueeze", part, axis) for part in parts]
        return self.op("Concat", *wide, axis=axis)[0]

    def body(self, graph: ir.Graph, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        """Write a copy of a body, reading the given values, and return its outputs."""
        copy = graph.clone(allow_outer_scope_values=True)
        if len(self._nodes) + len(copy) > MOST_OPERATORS:
            raise NoRuleError("it would take too many operators")
        given = dict(zip(copy.inputs, inputs))
        for old, new in given.items():
            old.replace_all_uses_with(new)
        for value in list(copy.initializers.values()):
            copy.initializers.pop(str(value.name))
            value.name = self._name()
            self._initializers.append(value)
        nodes, outputs = list(copy), [given.get(value, value) for value in copy.outputs]
        copy.outputs.clear()
        copy.remove(nodes)
        for inner in nodes:
            inner.name = None  # the next copy has the same
        for value in (v for inner in nodes for v in inner.outputs if v.name):
            value.name = f"{self._prefix}{self._copies}/{value.name}"
        self._copies += 1
        self._nodes += nodes
        return outputs

    def close(self, results: Sequence[ir.Value]) -> None:
        """Put all into the graph, in place of the node."""
        graph = self.trace.model.graph
        for value in self._initializers:
            graph.register_initializer(value)
        names = [value.name for value in self.node.outputs]
        outputs = [self.op("Identity", value)[0] for value in results]
        graph.insert_before(self.node, self._nodes)
        for old, new in zip(self.node.outputs, outputs):
            new.type, new.shape = old.type, old.shape
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(self.node)
        for name, new in zip(names, outputs):
            new.name = name or new.name

    def _name(self) -> str:
        self._copies += 1
        return f"{self._prefix}{self._copies}"


def _graph(node: ir.Node, name: str) -> ir.Graph:
    return node.attributes[name].as_graph()


def _fixed(trace: Trace, value: ir.Value | None) -> Array | None:
    if value is None:
        return None
    if value.const_value is not None:
        return np.asarray(value.const_value.numpy())
    if value not in trace.fixed:
        raise NoRuleError("the data decide how it goes on")
    return trace.fixed[value]


def _condition(trace: Trace, node: ir.Node) -> bool:
    return bool(np.all(_fixed(trace, node.inputs[0])))


def _if(w: _Writer) -> list[ir.Value]:
    name = "then_branch" if _condition(w.trace, w.node) else "else_branch"
    return w.body(_graph(w.node, name), [])


def _iterations(trace: Trace, node: ir.Node) -> int:
    most, going = (_fixed(trace, value) for value in node.inputs[:2])
    body = _graph(node, "body")
    still = _source(body.outputs[0])
    constant = still.const_value
    endless = still is body.inputs[1] or (constant is not None and constant.numpy().all())
    if most is None or not endless:
        raise NoRuleError("the data decide how often it runs")
    return int(most.item()) if going is None or going.all() else 0


def _source(value: ir.Value) -> ir.Value:
    """A value as it was before Identity and Cast."""
    node = value.producer()
    if node and node.op_type in ("Identity", "Cast") and node.inputs[0] is not None:
        return _source(node.inputs[0])
    return value


def _loop(w: _Writer) -> list[ir.Value]:
    body, states = _graph(w.node, "body"), _present(w.node.inputs[2:])
    collected: list[list[ir.Value]] = []
    true = w.const(np.array(True))
    for number in range(_iterations(w.trace, w.node)):
        _, *outputs = w.body(body, [w.const(np.array(number)), true, *states])
        count = len(states)
        states, scanned = outputs[:count], outputs[count:]
        collected.append(scanned)
    wanted = w.node.outputs[len(states) :]
    if wanted and not collected:
        raise NoRuleError("it runs not once")
    return states + [w.stacked(parts, 0) for parts in zip(*collected)]


def _check_scan(trace: Trace, node: ir.Node) -> int:
    count = get_int(node, "num_scan_inputs", 0)
    if trace.opset < 9 or not count:
        raise NoRuleError("Scan as it was before opset 9")
    return count


def _scan(w: _Writer) -> list[ir.Value]:
    node, body = w.node, _graph(w.node, "body")
    count, inputs = _check_scan(w.trace, node), _present(node.inputs)
    states, sequences = inputs[:-count], inputs[-count:]
    axes = get_ints(node, "scan_input_axes", [0] * count)
    turned = get_ints(node, "scan_input_directions", [0] * count)
    parts = []
    for value, axis, backwards in zip(sequences, axes, turned):
        shape = w.trace.shapes[value]
        entries = w.parts(value, axis % len(shape), shape[axis])
        parts.append(entries[::-1] if backwards else entries)
    collected: list[list[ir.Value]] = []
    for now in zip(*parts):
        outputs = w.body(body, [*states, *now])
        states, scanned = outputs[: len(states)], outputs[len(states) :]
        collected.append(scanned)
    made = len(body.outputs) - len(states)
    axes = get_ints(node, "scan_output_axes", [0] * made)
    turned = get_ints(node, "scan_output_directions", [0] * made)
    stacks = [list(stack) for stack in zip(*collected)] or [[] for _ in range(made)]
    for stack, axis, backwards, value in zip(stacks, axes, turned, node.outputs[len(states) :]):
        axis = axis % len(w.trace.shapes.get(value, (0,)))
        states.append(w.stacked(stack[::-1] if backwards else stack, axis))
    return states


def _present(values: Sequence[ir.Value | None]) -> list[ir.Value]:
    return [value for value in values if value is not None]


_WRITERS: Mapping[str, Callable[[_Writer], list[ir.Value]]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
}
