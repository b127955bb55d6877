"""Normalisation by statistics of the sample itself: over rows, channels, groups of channels.

All of them standardise, x̂ = (x − m) r, with a mean m (zero for the root-mean-square kinds) and a
reciprocal deviation r over the same axes, and go back by dx = r (g − mean(g) − x̂ mean(g x̂)).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_float, get_int, get_ints
from onnxrd.autodiff.registry import PER_SAMPLE, Cotangents, NoRuleError, reverse
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.terms import Term


@dataclass(frozen=True)
class _Standardised:
    """X̂ and r, and how to go back through them.

    Attributes:
        x: x̂ = (x − m) r.
        inverse: r.
        axes: over which the statistics were taken.
        centred: a mean was subtracted.
    """

    x: Term
    inverse: Term
    axes: list[int]
    centred: bool

    def back(self, g: Term) -> Term:
        inner = g - self.x * (g * self.x).mean(self.axes)
        return self.inverse * (inner - g.mean(self.axes) if self.centred else inner)


def _standardise(
    x: Term, axes: list[int], epsilon: float, *, centred: bool = True
) -> _Standardised:
    moved = x - x.mean(axes) if centred else x
    inverse = 1 / ((moved * moved).mean(axes) + epsilon).op("Sqrt")
    return _Standardised(moved * inverse, inverse, axes, centred)


@dataclass(frozen=True)
class _Layout:
    """How an operator sees its input.

    Attributes:
        shape: that x takes to be standardised.
        axes: of the statistics, in that shape.
        scale: shape of γ and β that broadcasts to x's own.
        centred: a mean is subtracted.
    """

    shape: tuple[int, ...]
    axes: list[int]
    scale: tuple[int, ...]
    centred: bool = True


def _layout(t: Tape, node: ir.Node) -> _Layout:
    x, gamma = node.inputs[0], node.inputs[1]
    assert x is not None and gamma is not None
    shape = t.shape(x)
    if "LayerNormalization" in node.op_type or node.op_type == "RMSNormalization":
        axis = get_int(node, "axis", -1) % len(shape)
        centred = node.op_type == "LayerNormalization"
        return _Layout(shape, list(range(axis, len(shape))), t.shape(gamma), centred)
    n, c, *spatial = shape
    groups = get_int(node, "num_groups", c)
    column = (c, *[1] * len(spatial))
    return _Layout((n, groups, c // groups * prod(spatial)), [2], column)


_KINDS = (
    "LayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
)


@reverse(*_KINDS)
def _normalisation(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """y = γ x̂ + β."""
    dy, x = dys[0], node.inputs[0]
    if dy is None or any(other is not None for other in dys[1:]):
        raise NoRuleError("a gradient of the statistics")
    assert x is not None
    shape, result = t.shape(x), {}
    layout, standardised = _standardised(t, node)
    if 0 in wanted:
        g = Term(t, dy) * _gamma(t, node, layout)
        result[0] = standardised.back(g.reshape(layout.shape)).reshape(shape).value
    for slot in wanted - {0}:
        product = _before_sum(t, node, slot, dy)
        result[slot] = _folded(t, node, slot, t.unbroadcast(product, shape, layout.scale), ())
    return result


def _standardised(t: Tape, node: ir.Node) -> tuple[_Layout, _Standardised]:
    assert node.inputs[0] is not None
    layout = _layout(t, node)
    x = Term(t, t.primal(node.inputs[0])).reshape(layout.shape)
    epsilon = get_float(node, "epsilon", 1e-5)
    return layout, _standardise(x, layout.axes, epsilon, centred=layout.centred)


def _gamma(t: Tape, node: ir.Node, layout: _Layout) -> Term:
    """The scale, in a shape that broadcasts; one for each group is repeated for its channels."""
    assert node.inputs[1] is not None
    gamma, repeats = Term(t, t.primal(node.inputs[1])), _channels_each(t, node)
    if repeats > 1:
        column = gamma.reshape((-1, 1))
        gamma = column.op("Expand", t.ints([1, repeats]))
    return gamma.reshape(layout.scale)


def _channels_each(t: Tape, node: ir.Node) -> int:
    """For how many channels an entry of γ or β is (opset 18 has one for each group)."""
    assert node.inputs[0] is not None and node.inputs[1] is not None
    if node.op_type != "GroupNormalization":
        return 1
    return t.shape(node.inputs[0])[1] // t.shape(node.inputs[1])[0]


def _before_sum(t: Tape, node: ir.Node, slot: int, dy: ir.Value) -> ir.Value:
    """The gradient of γ (β) at every entry of y."""
    if slot == 2:
        return dy
    assert node.inputs[0] is not None
    _, standardised = _standardised(t, node)
    return (Term(t, dy) * standardised.x.reshape(t.shape(node.inputs[0]))).value


def _folded(t: Tape, node: ir.Node, slot: int, summed: ir.Value, lead: tuple[int, ...]) -> ir.Value:
    """[*lead, *layout.scale] → [*lead, *γ]."""
    value, repeats = node.inputs[slot], _channels_each(t, node)
    assert value is not None
    if repeats > 1:
        pairs = t.reshape(summed, (*lead, *t.shape(value), repeats))
        summed = t.sum(pairs, [len(lead) + 1])
    return t.reshape(summed, (*lead, *t.shape(value)))


def _per_sample(slot: int) -> Callable[[Tape, ir.Node, ir.Value], ir.Value]:
    def rule(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
        shape, layout = t.shape(node.outputs[0]), _layout(t, node)
        if shape[0] != t.samples or len(layout.scale) == len(shape):
            raise NoRuleError("the sample axis is not the first")
        product = _before_sum(t, node, slot, dy)
        summed = t.unbroadcast(product, shape, layout.scale, batched=True)
        return _folded(t, node, slot, summed, (t.samples,))

    return rule


for _kind in _KINDS:
    PER_SAMPLE["", _kind, 1] = _per_sample(1)
    if _kind not in ("RMSNormalization", "SimplifiedLayerNormalization"):
        PER_SAMPLE["", _kind, 2] = _per_sample(2)


@reverse("MeanVarianceNormalization")
def _mean_variance(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,), x = dys, node.inputs[0]
    assert dy is not None and x is not None
    axes = [axis % t.rank(x) for axis in get_ints(node, "axes", [0, 2, 3])]
    standardised = _standardise(Term(t, t.primal(x)), axes, 1e-18)
    return {0: standardised.back(Term(t, dy)).value}


@reverse("LpNormalization")
def _lp(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """y = x/‖x‖: dx = (dy − s Σ dy y) / ‖x‖, s being y, or the sign of x for the 1-norm.

    Nothing where all entries are zero: y is, too.
    """
    (dy,), value = dys, node.inputs[0]
    assert dy is not None and value is not None
    x, y = Term(t, t.primal(value)), Term(t, t.primal(node.outputs[0]))
    g, axes = Term(t, dy), [get_int(node, "axis", -1) % t.rank(value)]
    if get_int(node, "p", 2) == 1:
        norm, s = x.op("Abs").sum(axes), x.op("Sign")
    else:
        norm, s = (x * x).sum(axes).op("Sqrt"), y
    zero = norm.equals(0.0)
    return {0: ((g - s * (g * y).sum(axes)) * (1 - zero) / (norm + zero)).value}


@reverse("LRN")
def _lrn(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """y = x s^−β with s = k + α/n · (x² summed over neighbouring channels)."""
    (dy,), value = dys, node.inputs[0]
    assert dy is not None and value is not None
    shape, size = t.shape(value), get_int(node, "size", 1)
    alpha, beta = get_float(node, "alpha", 1e-4), get_float(node, "beta", 0.75)
    flat = (*shape[:2], prod(shape[2:]))
    x, g = Term(t, t.primal(value)).reshape(flat), Term(t, dy).reshape(flat)
    offset = np.arange(shape[1]) - np.arange(shape[1])[:, None]
    near = (offset >= -((size - 1) // 2)) & (offset <= size // 2)
    band, back = near.astype(t.dtype), np.ascontiguousarray(near.T.astype(t.dtype))
    sums = Term(t, t.op("MatMul", band, (x * x).value))
    s = sums * (alpha / size) + get_float(node, "bias", 1.0)
    power = s.op("Pow", -beta)
    inner = Term(t, t.op("MatMul", back, (g * x * power / s).value))
    return {0: (g * power - x * inner * (2 * alpha * beta / size)).reshape(shape).value}
