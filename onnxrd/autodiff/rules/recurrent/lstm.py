"""LSTM, with gates in the order i, o, f, g.

::

    i, o, f = σ(X_t Wᵀ + b + h_{t−1} Rᵀ + p ∘ c)      (peepholes p: o sees c_t, the others c_{t−1})
    g       = τ(X_t Wᵀ + b + h_{t−1} Rᵀ)
    c_t     = f ∘ c_{t−1} + i ∘ g
    h_t     = o ∘ τ'(c_t)
"""

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxrd.autodiff.attributes import get_int
from onnxrd.autodiff.registry import Cotangents, NoRuleError, per_sample_together, reverse
from onnxrd.autodiff.rules.recurrent.direction import (
    B,
    Direction,
    Found,
    P,
    R,
    W,
    recurrent_rule,
)
from onnxrd.autodiff.rules.recurrent.gates import Gate
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.terms import Term

_DEFAULTS = ("Sigmoid", "Tanh", "Tanh")
Values = Sequence[ir.Value]


@reverse("LSTM")
def _lstm(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    return recurrent_rule(t, node, dys, wanted, _sweep, _DEFAULTS, each=False)


@per_sample_together("LSTM", slots=(W, R, B, P))
def _lstm_weights(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    return recurrent_rule(t, node, dys, wanted, _sweep, _DEFAULTS, each=True)


def _sweep(d: Direction, dy: Term, ends: Sequence[Term]) -> Found:
    if get_int(d.node, "input_forget", 0):
        raise NoRuleError("input_forget")
    kept = _forward(d)
    return _backward(d, kept, dy, ends)


def _forward(d: Direction) -> list[Term]:
    """[T, N, H] of: what the gates i, o, f, g are fed, c_{t−1}, c_t, h_{t−1}."""
    sigma, tau, squash = _functions(d)
    projected = d.projected()
    if d.bias:
        projected = projected + Term(d.t, d.bias[1])
    peep = d.split(Term(d.t, d.peepholes), 3) if d.peepholes else None

    def step(states: Values, now: Values) -> tuple[list[ir.Value], list[ir.Value]]:
        h, c, fed, *mask = (Term(d.t, value) for value in (*states, *now))
        i, o, f, g = d.split(fed + d.times(h, d.recurrent), 4)
        if peep:
            i, f = i + c * peep[0], f + c * peep[2]
        cell = sigma(f) * c + sigma(i) * tau(g)
        o = o + cell * peep[1] if peep else o
        hidden = sigma(o) * squash(cell)
        still = mask[0] if mask else None
        after = [d.held(still, hidden, h).value, d.held(still, cell, c).value]
        return after, [x.value for x in (i, o, f, g, c, cell, h)]

    _, kept = d.t.scan(step, d.starts, [projected.value, *d.masks()])
    return [Term(d.t, value) for value in kept]


def _backward(d: Direction, kept: Sequence[Term], dy: Term, ends: Sequence[Term]) -> Found:
    """All that does not depend on a later time is multiplied before the scan."""
    sigma, tau, squash = _functions(d)
    i, o, f, g, before, cell, h = kept
    I, O, F, G, C = sigma(i), sigma(o), sigma(f), tau(g), squash(cell)  # noqa: E741
    slopes = [
        sigma.derivative(o, O) * C,  # do / dh
        O * squash.derivative(cell, C),  # dc / dh
        sigma.derivative(i, I) * G,  # di / dc
        sigma.derivative(f, F) * before,
        tau.derivative(g, G) * I,
        F,
    ]
    peep = d.split(Term(d.t, d.peepholes), 3) if d.peepholes else None

    def step(states: Values, now: Values) -> tuple[list[ir.Value], list[ir.Value]]:
        dh, dc, dy, *rest = (Term(d.t, value) for value in (*states, *now))
        o, c, i, f, g, forget, *mask = rest
        total, later = (dy + dh, dc) if not mask else ((dy + dh) * mask[0], dc * mask[0])
        do = total * o
        dcell = later + total * c + (do * peep[1] if peep else 0.0)
        di, df, dg = dcell * i, dcell * f, dcell * g
        earlier = dcell * forget
        if peep:
            earlier = earlier + di * peep[0] + df * peep[2]
        da = di.op("Concat", do, df, dg, axis=-1)
        hidden = da.op("MatMul", d.recurrent)
        if mask:
            hidden = hidden + dh * (1 - mask[0])
            earlier = earlier + dc * (1 - mask[0])
        return [hidden.value, earlier.value], [da.value]

    sequences = [x.value for x in (dy, *slopes)]
    last = [end.value for end in ends]
    starts, (da,) = d.t.scan(step, last, [*sequences, *d.masks()], backward=True)
    looked = []
    if peep:
        di, do, df, _ = d.split(Term(d.t, da), 4)
        looked = [(di * before).value, (do * cell).value, (df * before).value]
    return Found(da, [(da, h.value)], starts, looked)


def _functions(d: Direction) -> tuple[Gate, Gate, Gate]:
    """Of i, o and f; of g; of the cell, which is not clipped."""
    sigma, tau, squash = d.gates
    return sigma, tau, replace(squash, clip=0.0)
