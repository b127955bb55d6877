"""RNN: h_t = f(X_t Wᵀ + b_W + h_{t−1} Rᵀ + b_R)."""

from collections.abc import Sequence

import onnx_ir as ir

from onnxrd.autodiff.registry import Cotangents, per_sample_together, reverse
from onnxrd.autodiff.rules.recurrent.direction import B, Direction, Found, R, W, recurrent_rule
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.terms import Term

_DEFAULTS = ("Tanh",)


@reverse("RNN")
def _rnn(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    return recurrent_rule(t, node, dys, wanted, _sweep, _DEFAULTS, each=False)


@per_sample_together("RNN", slots=(W, R, B))
def _rnn_weights(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    return recurrent_rule(t, node, dys, wanted, _sweep, _DEFAULTS, each=True)


def _sweep(d: Direction, dy: Term, ends: Sequence[Term]) -> Found:
    (f,) = d.gates
    projected = d.projected()
    if d.bias:
        projected = projected + Term(d.t, d.bias[1])

    def forward(
        states: Sequence[ir.Value], now: Sequence[ir.Value]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        before, fed, *mask = (Term(d.t, value) for value in (*states, *now))
        a = fed + d.times(before, d.recurrent)
        after = d.held(mask[0] if mask else None, f(a), before)
        return [after.value], [a.value, before.value]

    _, kept = d.t.scan(forward, d.starts, [projected.value, *d.masks()])
    a, before = (Term(d.t, value) for value in kept)
    slope = f.derivative(a, f(a))

    def back(
        states: Sequence[ir.Value], now: Sequence[ir.Value]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        dh, dy, slope, *mask = (Term(d.t, value) for value in (*states, *now))
        total = (dy + dh) * mask[0] if mask else dy + dh
        da = total * slope
        earlier = da.op("MatMul", d.recurrent)
        earlier = earlier + dh * (1 - mask[0]) if mask else earlier
        return [earlier.value], [da.value]

    sequences = [dy.value, slope.value, *d.masks()]
    starts, (da,) = d.t.scan(back, [ends[0].value], sequences, backward=True)
    return Found(da, [(da, before.value)], starts)
