"""What the three recurrent operators have in common: directions, projections, gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_int, get_string
from onnxrd.autodiff.registry import Cotangents, NoRuleError
from onnxrd.autodiff.rules.recurrent.gates import Gate, gates_of
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.terms import Term

X, W, R, B, LENGTHS, H0, C0, P = range(8)
"""Input slots."""


@dataclass(frozen=True)
class Direction:
    """One direction of a recurrent operator, with time turned so that it runs forward.

    T times, N samples, I inputs, H units, G gates.

    Attributes:
        t: the tape.
        node: the operator.
        gates: its functions.
        size: (T, N, I, H, G).
        fed: [T, N, I], the input.
        weight: [G·H, I].
        recurrent: [G·H, H].
        bias: [G·H] of the input and [G·H] of the state; None for zeros.
        mask: [T, N, 1], 1 while a sequence lasts; None if all last to the end.
        starts: [N, H] for each state.
        peepholes: [3·H] or None.
    """

    t: Tape
    node: ir.Node
    gates: Sequence[Gate]
    size: tuple[int, int, int, int, int]
    fed: ir.Value
    weight: ir.Value
    recurrent: ir.Value
    bias: tuple[ir.Value, ...] | None
    mask: ir.Value | None
    starts: tuple[ir.Value, ...]
    peepholes: ir.Value | None

    def projected(self) -> Term:
        """X Wᵀ + b_W, [T, N, G·H]."""
        times, samples, inputs, units, gates = self.size
        rows = self.t.reshape(self.fed, (times * samples, inputs))
        bias = self.bias[0] if self.bias else None
        product = self.t.op("Gemm", rows, self.weight, bias, transB=1)
        return Term(self.t, self.t.reshape(product, (times, samples, gates * units)))

    def masks(self) -> list[ir.Value]:
        """The mask as a sequence for a scan, if there is one."""
        return [] if self.mask is None else [self.mask]

    def split(self, x: Term, parts: int) -> list[Term]:
        """[…, parts·H] → parts × […, H]."""
        return [Term(self.t, value) for value in split(self.t, x.value, parts)]

    def rows(self, first: int, end: int) -> Term:
        """[(end − first)·H, H]: the recurrent weights of some gates."""
        units = self.size[3]
        return Term(self.t, _between(self.t, self.recurrent, first * units, end * units))

    def times(self, x: Term, matrix: ir.Value) -> Term:
        """X Mᵀ of [N, K] and [M, K]."""
        return Term(self.t, self.t.op("Gemm", x.value, matrix, transB=1))

    def held(self, mask: Term | None, new: Term, old: Term) -> Term:
        """The new state, or the old one where the sequence is over."""
        return new if mask is None else old + mask * (new - old)


@dataclass(frozen=True)
class Found:
    """Cotangents of one direction.

    Attributes:
        inputs: [T, N, G·H], of X Wᵀ + b_W.
        states: products with the recurrent weights, in the order of its rows: ([T, N, K], of the
            product; [T, N, H], of what was multiplied with these rows).
        starts: [N, H] for each state.
        peepholes: [T, N, H] each, of i, o and f.
    """

    inputs: ir.Value
    states: Sequence[tuple[ir.Value, ir.Value]]
    starts: Sequence[ir.Value]
    peepholes: Sequence[ir.Value] = field(default_factory=tuple)


Sweep = Callable[[Direction, Term, Sequence[Term]], Found]
"""(direction, cotangents of its outputs [T, N, H] and of its last states [N, H]) → cotangents."""


def recurrent_rule(
    t: Tape,
    node: ir.Node,
    dys: Sequence[ir.Value | None],
    wanted: frozenset[int],
    sweep: Sweep,
    defaults: Sequence[str],
    *,
    each: bool,
) -> Cotangents:
    """Cotangents of all wanted inputs.

    Args:
        t: the tape.
        node: LSTM, GRU or RNN.
        dys: of Y and the last states.
        wanted: input slots.
        sweep: what is particular to the operator.
        defaults: its activations.
        each: weights' gradients for each sample, [N, *weight].

    Raises:
        NoRuleError: a form of the operator that is not covered.
    """
    if get_int(node, "layout", 0):
        raise NoRuleError("layout 1, which onnxruntime does not run")
    names = get_string(node, "direction", "forward")
    turned = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[names]
    if each and (t.shape(_input(node, X))[1] != t.samples or wanted & {H0, C0}):
        raise NoRuleError("the second axis does not count the samples")
    parts = []
    for k, (backwards, gates) in enumerate(zip(turned, gates_of(t, node, defaults, len(turned)))):
        direction = _direction(t, node, k, backwards, gates)
        found = sweep(direction, *_arriving(direction, dys, k, backwards))
        parts.append(_gradients(direction, found, wanted, backwards, each=each))
    joined = {}
    for slot in wanted:
        values = [part[slot] for part in parts]
        if slot == X:
            joined[slot] = values[0] if len(values) == 1 else t.op("Sum", *values)
        else:
            axis = int(each)
            stacked = [t.op("Unsqueeze", value, t.ints([axis])) for value in values]
            joined[slot] = t.op("Concat", *stacked, axis=axis)
    return joined


def _direction(t: Tape, node: ir.Node, k: int, backwards: bool, gates: list[Gate]) -> Direction:
    times, samples, inputs = t.shape(_input(node, X))
    _, rows, units = t.shape(_input(node, R))

    def of(slot: int) -> ir.Value | None:
        if slot >= len(node.inputs) or node.inputs[slot] is None:
            return None
        return t.op("Gather", t.primal(_input(node, slot)), np.array(k), axis=0)

    bias, weight, recurrent = of(B), of(W), of(R)
    assert weight is not None and recurrent is not None
    zeros = np.zeros((samples, units), t.dtype)
    starts = [t.const(zeros) if (s := of(slot)) is None else s for slot in (H0, C0)]
    fed = _turn(t, node, t.primal(_input(node, X)), backwards)
    return Direction(
        t,
        node,
        gates,
        (times, samples, inputs, units, rows // units),
        fed,
        weight,
        recurrent,
        None if bias is None else split(t, bias, 2),
        _mask(t, node, times, samples),
        tuple(starts[: len(_states(node))]),
        of(P),
    )


def _arriving(
    d: Direction, dys: Sequence[ir.Value | None], k: int, backwards: bool
) -> tuple[Term, list[Term]]:
    """Cotangents of the outputs, in the order of time, and of the last states."""
    t, (times, samples, _, units, _) = d.t, d.size
    zeros = t.const(np.zeros((samples, units), t.dtype))
    outputs = [*dys, None, None][: 1 + len(_states(d.node))]
    dy = outputs[0]
    if dy is None:
        over_time = t.zeros((times, samples, units))
    else:
        over_time = _turn(t, d.node, t.op("Gather", dy, np.array(k), axis=1), backwards)
    ends = [zeros if e is None else t.op("Gather", e, np.array(k), axis=0) for e in outputs[1:]]
    return Term(t, over_time), [Term(t, end) for end in ends]


def _gradients(
    d: Direction, found: Found, wanted: frozenset[int], backwards: bool, *, each: bool
) -> dict[int, ir.Value]:
    t, (times, samples, inputs, units, gates) = d.t, d.size
    result: dict[int, ir.Value] = {}
    if X in wanted:
        rows = t.reshape(found.inputs, (times * samples, gates * units))
        dx = t.reshape(t.op("MatMul", rows, d.weight), (times, samples, inputs))
        result[X] = _turn(t, d.node, dx, backwards)
    if W in wanted:
        result[W] = _product(d, found.inputs, d.fed, each)
    if R in wanted:
        blocks = [_product(d, dy, left, each) for dy, left in found.states]
        result[R] = blocks[0] if len(blocks) == 1 else t.op("Concat", *blocks, axis=int(each))
    axes = [0] if each else [0, 1]
    if B in wanted:
        sums = [t.sum(x, axes) for x in (found.inputs, *(dy for dy, _ in found.states))]
        result[B] = t.op("Concat", *sums, axis=int(each))
    if P in wanted:
        result[P] = t.op("Concat", *(t.sum(x, axes) for x in found.peepholes), axis=int(each))
    result |= {slot: x for slot, x in zip((H0, C0), found.starts) if slot in wanted}
    return result


def _product(d: Direction, dy: ir.Value, left: ir.Value, each: bool) -> ir.Value:
    """Σ_t dy_t x_tᵀ of [T, N, G] and [T, N, K]: [G, K], or for each sample [N, G, K]."""
    if each:
        return d.t.op("MatMul", d.t.transpose(dy, (1, 2, 0)), d.t.transpose(left, (1, 0, 2)))
    rows = d.size[0] * d.size[1]
    flat = [d.t.op("Reshape", x, d.t.ints([rows, -1])) for x in (dy, left)]
    return d.t.op("Gemm", *flat, transA=1)


def _turn(t: Tape, node: ir.Node, x: ir.Value, backwards: bool) -> ir.Value:
    """[T, N, …] with each sequence turned round within its own length."""
    if not backwards:
        return x
    times, samples, _ = t.shape(_input(node, X))
    lengths = _lengths(t, node)
    if lengths is None:
        lengths = t.const(np.full(samples, times, np.int64))
    return t.op("ReverseSequence", x, lengths, batch_axis=1, time_axis=0)


def _lengths(t: Tape, node: ir.Node) -> ir.Value | None:
    if len(node.inputs) <= LENGTHS or node.inputs[LENGTHS] is None:
        return None
    return t.op("Cast", t.primal(_input(node, LENGTHS)), to=int(ir.DataType.INT64))


def _mask(t: Tape, node: ir.Node, times: int, samples: int) -> ir.Value | None:
    lengths = _lengths(t, node)
    if lengths is None:
        return None
    clock = t.const(np.arange(times).reshape(times, 1, 1))
    return t.mask(t.op("Less", clock, t.reshape(lengths, (1, samples, 1))))


def _states(node: ir.Node) -> tuple[int, ...]:
    return (H0, C0) if node.op_type == "LSTM" else (H0,)


def _input(node: ir.Node, slot: int) -> ir.Value:
    value = node.inputs[slot]
    assert value is not None
    return value


def split(t: Tape, x: ir.Value, parts: int) -> tuple[ir.Value, ...]:
    """Equal parts of the last axis."""
    made = t.op("Split", x, outputs=parts, axis=-1, num_outputs=parts)
    return (made,) if isinstance(made, ir.Value) else made


def _between(t: Tape, x: ir.Value, first: int, end: int) -> ir.Value:
    return t.op("Slice", x, t.ints([first]), t.ints([end]), t.ints([0]))
