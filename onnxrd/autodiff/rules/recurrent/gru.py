"""GRU, with gates in the order z, r, n.

::

    z, r = σ(X_t Wᵀ + b_W + h_{t−1} Rᵀ + b_R)
    n    = τ(X_t Wᵀ + b_W + (r ∘ h_{t−1}) Rᵀ + b_R)      linear_before_reset = 0
    n    = τ(X_t Wᵀ + b_W + r ∘ (h_{t−1} Rᵀ + b_R))      linear_before_reset = 1
    h_t  = (1 − z) ∘ n + z ∘ h_{t−1}
"""

from collections.abc import Sequence

import onnx_ir as ir

from onnxrd.autodiff.attributes import get_int
from onnxrd.autodiff.registry import Cotangents, per_sample_together, reverse
from onnxrd.autodiff.rules.recurrent.direction import (
    B,
    Direction,
    Found,
    R,
    W,
    recurrent_rule,
)
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.terms import Term

_DEFAULTS = ("Sigmoid", "Tanh")
Values = Sequence[ir.Value]


@reverse("GRU")
def _gru(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    return recurrent_rule(t, node, dys, wanted, _sweep, _DEFAULTS, each=False)


@per_sample_together("GRU", slots=(W, R, B))
def _gru_weights(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    return recurrent_rule(t, node, dys, wanted, _sweep, _DEFAULTS, each=True)


def _sweep(d: Direction, dy: Term, ends: Sequence[Term]) -> Found:
    reset_last = bool(get_int(d.node, "linear_before_reset", 0))
    return _backward(d, _forward(d, reset_last), dy, ends, reset_last)


def _forward(d: Direction, reset_last: bool) -> list[Term]:
    """[T, N, H] of: what z, r and n are fed, h_{t−1}, what R_n gives or (not `reset_last`) gets."""
    sigma, tau = d.gates
    gates, last = d.rows(0, 2), d.rows(2, 3)
    bias = d.split(Term(d.t, d.bias[1]), 3) if d.bias else None

    def step(states: Values, now: Values) -> tuple[list[ir.Value], list[ir.Value]]:
        h, fed, *mask = (Term(d.t, value) for value in (*states, *now))
        z, r, n = d.split(fed, 3)
        dz, dr = d.split(d.times(h, gates.value), 2)
        z, r = z + dz, r + dr
        if bias:
            z, r = z + bias[0], r + bias[1]
        reset = sigma(r)
        inner = h if reset_last else reset * h
        product = d.times(inner, last.value)
        product = product + bias[2] if bias else product
        n = n + (reset * product if reset_last else product)
        update = sigma(z)
        hidden = tau(n) + update * (h - tau(n))
        after = d.held(mask[0] if mask else None, hidden, h)
        return [after.value], [x.value for x in (z, r, n, h, product if reset_last else inner)]

    _, kept = d.t.scan(step, d.starts, [d.projected().value, *d.masks()])
    return [Term(d.t, value) for value in kept]


def _backward(
    d: Direction, kept: Sequence[Term], dy: Term, ends: Sequence[Term], reset_last: bool
) -> Found:
    """All that does not depend on a later time is multiplied before the scan."""
    sigma, tau = d.gates
    gates, last = d.rows(0, 2), d.rows(2, 3)
    z, r, n, h, inner = kept
    Z, R, N = sigma(z), sigma(r), tau(n)
    slopes = [
        sigma.derivative(z, Z) * (h - N),  # dz / dh
        tau.derivative(n, N) * (1 - Z),  # dn / dh
        sigma.derivative(r, R) * (inner if reset_last else h),  # dr / d(r ∘ …)
        R,
        Z,
    ]

    def step(states: Values, now: Values) -> tuple[list[ir.Value], list[ir.Value]]:
        dh, dy, z, n, r, reset, keep, *mask = (Term(d.t, value) for value in (*states, *now))
        total = (dy + dh) * mask[0] if mask else dy + dh
        dz, dn = total * z, total * n
        earlier = total * keep
        if reset_last:
            dr, product = dn * r, dn * reset
            earlier = earlier + product.op("MatMul", last)
        else:
            product = dn.op("MatMul", last)
            dr, earlier = product * r, earlier + product * reset
        both = dz.op("Concat", dr, axis=-1)
        earlier = earlier + both.op("MatMul", gates)
        earlier = earlier + dh * (1 - mask[0]) if mask else earlier
        return [earlier.value], [both.value, dn.value]

    sequences = [x.value for x in (dy, *slopes)]
    starts, (both, dn) = d.t.scan(step, [ends[0].value], [*sequences, *d.masks()], backward=True)
    inputs = d.t.op("Concat", both, dn, axis=-1)
    if reset_last:
        states = [(both, h.value), ((Term(d.t, dn) * R).value, h.value)]
    else:
        states = [(both, h.value), (dn, inner.value)]
    return Found(inputs, states, starts)
