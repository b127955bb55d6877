"""Reverse mode: from cotangents of some values of a network to gradients of its weights.

Two kinds of pass are built here. `gradient` is ordinary reverse mode and exact for every operator
that has a rule; with a batch of one its square is the per-sample square, which makes it the
reference. `squares` handles a batch at once: activations' cotangents stay per sample, and each
weight's per-sample gradients are squared and summed inside the graph, so that only arrays of the
weights' shapes leave it. It takes axis 0 of activations for the sample axis, which is an assumption
about the network and has to be checked against the reference (`autodiff.gradients` does).

Targets may also be values that the network computes; what is asked for then is the second moment of
their cotangents.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
import onnx_ir as ir

import onnxrd.autodiff.rules  # noqa: F401  (fills the registry)
from onnxrd.autodiff.attributes import get_int
from onnxrd.autodiff.dependence import captured_by, depending_on
from onnxrd.autodiff.registry import (
    PER_SAMPLE,
    REVERSE,
    SQUARES,
    STAIRCASES,
    TOGETHER,
    NoRuleError,
    domain_of,
)
from onnxrd.autodiff.sharing import back_by_sample, shared_weights
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.trace import Trace
from onnxrd.autodiff.unroll import why_not_unrolled
from onnxrd.graph.uses import PASSED_THROUGH

Mode = Literal["gradient", "squared gradient", "squares", "second moment"]
Result = TypeVar("Result")


class NotBatchableError(Exception):
    """A weight is used in a way that only a batch of one can handle; the text says which."""


@dataclass(frozen=True, eq=False)
class ReversePass:
    """A reverse pass ready to run.

    Attributes:
        model: inputs are `tap:NAME` and `seed:NAME`, outputs `grad:NAME` of the targets.
        taps: values of the network that the forward pass has to deliver.
        seeds: values of the network at which cotangents are fed.
        targets: names of the weights it delivers.
        blocked: weights it cannot deliver: name → the operator in the way.
        obstacles: the operators in the way, of the traced graph, each with the names of the targets
            that it blocks.
    """

    model: ir.Model
    taps: tuple[ir.Value, ...]
    seeds: tuple[ir.Value, ...]
    targets: tuple[str, ...]
    blocked: Mapping[str, str]
    obstacles: Mapping[ir.Node, frozenset[str]] = field(default_factory=dict)


def reverse_pass(
    trace: Trace,
    seeds: Sequence[ir.Value],
    targets: Sequence[ir.Value],
    mode: Mode,
    *,
    samples: int = 1,
    axes: Mapping[str, int] | None = None,
    dtype: type = np.float32,
) -> ReversePass:
    """Build the reverse pass for the shapes of a trace.

    Args:
        trace: of the network on inputs of these shapes.
        seeds: values at which cotangents come in.
        targets: weights, as initializers of the traced graph; in mode "second moment" any values.
        mode: what to deliver for each weight: its gradient summed over the batch, the square of
            that, or Σ_n of the squared per-sample gradients. For a value, Σ g gᵀ [C, C] of its
            cotangent along an axis of length C, summed over all other axes.
        samples: length of axis 0 of the batch.
        axes: which axis, by name of the target (mode "second moment").
        dtype: precision of the reverse pass.

    Raises:
        NotBatchableError: `mode` is "squares" and a weight needs a batch of one.
    """
    sweep = _Sweep(trace, seeds, targets, mode, Tape(trace, samples, dtype), axes or {})
    sweep.run()
    blocked = sweep.blocked
    if blocked:
        reachable = [t for t in targets if t.name not in blocked]
        rest = reverse_pass(trace, seeds, reachable, mode, samples=samples, axes=axes, dtype=dtype)
        return replace(rest, blocked=blocked, obstacles=sweep.obstacles)
    return sweep.close()


class _Sweep:
    """One walk over the network from its end to its beginning."""

    def __init__(
        self,
        trace: Trace,
        seeds: Sequence[ir.Value],
        targets: Sequence[ir.Value],
        mode: Mode,
        tape: Tape,
        axes: Mapping[str, int],
    ) -> None:
        self.graph, self._axes = trace.model.graph, axes
        self.seeds, self.targets, self.mode, self.tape = seeds, targets, mode, tape
        self.blocked: dict[str, str] = {}
        self.obstacles: dict[ir.Node, frozenset[str]] = {}
        self._staircases: list[ir.Node] = []
        self._upstream = depending_on(self.graph, targets, tape)
        self._constant = self._weights_and_moved_weights()
        self._shared = shared_weights(self.graph, targets, self._constant, self._upstream)
        self._arrived: dict[ir.Value, list[ir.Value]] = {}

    def run(self) -> None:
        for seed in self.seeds:
            shape = self.tape.shape(seed)
            value = self.tape.input(f"seed:{seed.name}", self.tape.dtype, shape)
            self._arrived.setdefault(seed, []).append(value)
        for node in reversed(list(self.graph)):
            self._visit(node)
        for node in self._staircases:
            self._block(node, node.inputs, "it is a staircase", unless=self._arrived)

    def close(self) -> ReversePass:
        outputs = []
        for target in self.targets:
            gradient = self._cotangent(target)
            if gradient is None:
                shape = self.tape.shape(target)
                width = shape[self._axis(target)] if self.mode == "second moment" else 0
                gradient = self.tape.zeros((width, width) if width else shape)
            elif self.mode == "squares" and target in self._shared:
                gradient = self._squared(target, gradient)
            elif self.mode == "squared gradient":
                gradient = self.tape.op("Mul", gradient, gradient)
            elif self.mode == "second moment":
                gradient = self._second_moment(target, gradient)
            outputs.append((f"grad:{target.name}", gradient))
        return ReversePass(
            self.tape.model(outputs),
            tuple(self.tape.taps),
            tuple(self.seeds),
            tuple(str(target.name) for target in self.targets),
            {},
        )

    def _visit(self, node: ir.Node) -> None:
        if not any(output in self._arrived for output in node.outputs):
            return
        captured = [value for value in captured_by(node) if value in self._upstream]
        if captured:
            self._block(node, captured, why_not_unrolled(self.tape.trace, node))
        wanted = frozenset(
            slot for slot, value in enumerate(node.inputs) if value in self._upstream
        )
        if not wanted:
            return
        if node.op_type in STAIRCASES and domain_of(node) == "":
            self._staircases.append(node)
            return
        cotangents = [self._cotangent(output) for output in node.outputs]
        try:
            if self.mode == "squares":
                gradients = self._per_sample(node, cotangents, wanted)
            else:
                gradients = self._reverse(node, cotangents, wanted)
        except NoRuleError as reason:
            self._block(node, [node.inputs[slot] for slot in wanted], str(reason))
            return
        for slot, gradient in gradients.items():
            value = node.inputs[slot]
            assert value is not None
            self._arrived.setdefault(value, []).append(gradient)

    def _reverse(
        self, node: ir.Node, cotangents: Sequence[ir.Value | None], wanted: frozenset[int]
    ) -> Mapping[int, ir.Value]:
        rule = REVERSE.get((domain_of(node), node.op_type))
        if rule is None:
            raise NoRuleError("")
        return rule(self.tape, node, cotangents, wanted)

    def _per_sample(
        self, node: ir.Node, cotangents: Sequence[ir.Value | None], wanted: frozenset[int]
    ) -> Mapping[int, ir.Value]:
        """Activations by their reverse rule, weights by the rule for their per-sample squares."""
        first = node.outputs[0]
        if (domain_of(node), node.op_type) not in REVERSE:
            raise NoRuleError("")
        if first in self._shared:
            return {0: _batched(node, back_by_sample, self.tape, node, cotangents[0])}
        if first in self._constant:  # between a weight and its use
            return self._reverse(node, cotangents, wanted)
        if first in self.tape.trace.fixed and self._leading(first) != self.tape.samples:
            raise NotBatchableError(f"a weight goes through {node.op_type} before its use")
        weights = {
            slot: value
            for slot, value in enumerate(node.inputs)
            if slot in wanted and value in self._constant
        }
        slots, together = TOGETHER.get((domain_of(node), node.op_type), (frozenset(), None))
        if together and weights and slots.issuperset(weights):
            gradients = dict(_batched(node, together, self.tape, node, cotangents, wanted))
        else:
            others = wanted.difference(weights)
            gradients = dict(self._reverse(node, cotangents, others)) if others else {}
        for slot, value in weights.items():
            assert value is not None
            if slot not in gradients:
                gradients[slot] = self._for_weight(node, slot, value, cotangents)
            elif value not in self._shared:
                gradients[slot] = self._squared(value, gradients[slot])
        return gradients

    def _for_weight(
        self, node: ir.Node, slot: int, value: ir.Value, cotangents: Sequence[ir.Value | None]
    ) -> ir.Value:
        """Σ_n g_n² [*weight] of a weight's only use, or g_n [N, *weight] of one of several."""
        (cotangent, *others), use = cotangents, (domain_of(node), node.op_type, slot)
        if others or cotangent is None:
            raise NotBatchableError(f"{node.op_type} has several outputs")
        reason = f"{node.op_type} has no batched rule for input {slot}"
        if use in SQUARES and value not in self._shared:
            try:
                return SQUARES[use](self.tape, node, cotangent)
            except NoRuleError as error:
                reason = f"{node.op_type}: {error}"
        if use not in PER_SAMPLE:
            raise NotBatchableError(reason)
        gradients = _batched(node, PER_SAMPLE[use], self.tape, node, cotangent)
        return gradients if value in self._shared else self._squared(value, gradients)

    def _squared(self, value: ir.Value, gradients: ir.Value) -> ir.Value:
        """Σ_n g_n² of per-sample gradients [N, *weight]."""
        shape = (self.tape.samples, *self.tape.shape(value))
        return self.tape.total(self.tape.op("Mul", gradients, gradients), shape)

    def _second_moment(self, value: ir.Value, gradient: ir.Value) -> ir.Value:
        """Σ g gᵀ along the target's axis."""
        shape, axis = self.tape.shape(value), self._axis(value)
        last = [*(i for i in range(len(shape)) if i != axis), axis]
        rows = self.tape.reshape(self.tape.transpose(gradient, last), (-1, shape[axis]))
        return self.tape.op("Gemm", rows, rows, transA=1)

    def _axis(self, target: ir.Value) -> int:
        """That of its second moment; the only one of a vector."""
        return self._axes[str(target.name)] % self.tape.rank(target)

    def _weights_and_moved_weights(self) -> set[ir.Value]:
        """Initializers, and what others become that only have their entries moved."""
        constant = set(self.graph.initializers.values())
        for node in self.graph:
            fixed = all(v in self.tape.trace.fixed for v in node.outputs if v.name)
            alone = all(v in constant for v in node.inputs if v in self._upstream)
            if fixed and alone and self._only_moves(node):
                constant.update(node.outputs)
        return constant

    def _leading(self, value: ir.Value) -> int:
        """Length of axis 0."""
        return next(iter(self.tape.shape(value)), 1)

    def _only_moves(self, node: ir.Node) -> bool:
        """Every entry of the input lands in at most one place, unchanged: so do its squares."""
        moved = node.inputs[0] if node.inputs else None
        if node.op_type in PASSED_THROUGH or node.op_type in _MOVES or moved is None:
            return True
        if node.op_type == "Expand":
            return self.tape.shape(moved) == self.tape.shape(node.outputs[0])
        index = self.tape.constant(node.inputs[1]) if node.op_type == "Gather" else None
        if index is None:
            return False
        axis = get_int(node, "axis", 0)
        return np.unique(index % self.tape.shape(moved)[axis]).size == index.size

    def _cotangent(self, value: ir.Value) -> ir.Value | None:
        """The sum of all cotangents that have arrived at a value."""
        arrived = self._arrived.get(value)
        if not arrived:
            return None
        if len(arrived) > 1:
            self._arrived[value] = arrived = [self.tape.op("Sum", *arrived)]
        return arrived[0]

    def _block(
        self,
        node: ir.Node,
        values: Iterable[ir.Value | None],
        reason: str,
        unless: Container[ir.Value] = (),
    ) -> None:
        """Note which targets, apart from some, lie upstream of values that nothing goes back to."""
        text = f"{node.op_type} has no derivative here" + (f" ({reason})" if reason else "")
        stack = list(values)
        seen: set[ir.Value] = set()
        while stack:
            value = stack.pop()
            if value is None or value in seen or value not in self._upstream:
                continue
            seen.add(value)
            if value in self.targets and value not in unless:
                self.blocked.setdefault(str(value.name), text)
            producer = value.producer()
            stack.extend((*producer.inputs, *captured_by(producer)) if producer else ())
        names = {str(v.name) for v in seen.intersection(self.targets) if v not in unless}
        self.obstacles[node] = self.obstacles.get(node, frozenset()) | names


def _batched(node: ir.Node, rule: Callable[..., Result], *arguments: Any) -> Result:
    """What a rule for batches gives; where it does not apply a batch of one is needed."""
    try:
        return rule(*arguments)
    except NoRuleError as error:
        raise NotBatchableError(f"{node.op_type}: {error}") from error


_MOVES = frozenset({"Concat", "DepthToSpace", "SpaceToDepth"})
"""Operators that only move entries, besides those that a weight is followed through."""
