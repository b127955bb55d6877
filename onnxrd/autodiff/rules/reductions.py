"""Reductions over axes, and cumulative sums."""

from collections.abc import Callable, Sequence
from math import prod

import onnx_ir as ir

from onnxrd.autodiff.attributes import get_int
from onnxrd.autodiff.registry import Cotangents, NoRuleError, reverse
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.terms import Term

Share = Callable[[Tape, ir.Node, Term, list[int]], Term]
"""(tape, node, dy, axes) → the cotangent of x, in its shape or with reduced axes of length 1.

`dy` comes with the reduced axes kept at length 1.
"""


def _mean(t: Tape, node: ir.Node, dy: Term, axes: list[int]) -> Term:
    assert node.inputs[0] is not None
    shape = t.shape(node.inputs[0])
    return dy * (1.0 / prod(shape[axis] for axis in axes))


def _extreme(t: Tape, node: ir.Node, dy: Term, axes: list[int]) -> Term:
    """To the largest (smallest) entry, in equal parts where several are."""
    hits = _x(t, node).equals(_y(t, node, axes))
    return hits * (dy / hits.sum(axes))


def _l2(t: Tape, node: ir.Node, dy: Term, axes: list[int]) -> Term:
    """y = √Σx²: dx = dy x / y; nothing where all entries are zero."""
    tiny = 1e-30
    return _x(t, node) * (dy / _y(t, node, axes).op("Max", tiny))


def _prod(t: Tape, node: ir.Node, dy: Term, axes: list[int]) -> Term:
    """y/x; with one zero among the entries it gets the product of the others, the others nothing.

    More zeros: nothing to anyone.
    """
    x = _x(t, node)
    zero = x.equals(0.0)
    count, filled = zero.sum(axes), x + zero
    others = filled.op("ReduceProd", t.ints(axes), keepdims=1) if axes else filled
    lonely = zero * count.equals(1.0) + (1 - zero) * count.equals(0.0)
    return dy * others * lonely / filled


SHARES: dict[str, Share] = {
    "ReduceSum": lambda t, node, dy, axes: dy,
    "ReduceMean": _mean,
    "ReduceMax": _extreme,
    "ReduceMin": _extreme,
    "ReduceL1": lambda t, node, dy, axes: dy * _x(t, node).op("Sign"),
    "ReduceL2": _l2,
    "ReduceSumSquare": lambda t, node, dy, axes: _x(t, node) * (dy * 2),
    "ReduceLogSum": lambda t, node, dy, axes: dy * (-_y(t, node, axes)).op("Exp"),
    "ReduceLogSumExp": lambda t, node, dy, axes: dy * (_x(t, node) - _y(t, node, axes)).op("Exp"),
    "ReduceProd": _prod,
}
"""Operator → what goes back to its input."""

_FULL = frozenset(SHARES) - {"ReduceSum", "ReduceMean", "ReduceLogSum"}


@reverse(*SHARES)
def _reduce(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,), x = dys, node.inputs[0]
    assert dy is not None and x is not None
    axes, shape = _reduced_axes(t, node), t.shape(x)
    kept = Term(t, dy).reshape(_kept(shape, axes))
    dx = SHARES[node.op_type](t, node, kept, axes)
    return {0: dx.value if node.op_type in _FULL else t.op("Expand", dx.value, t.ints(shape))}


@reverse("CumSum")
def _cum_sum(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """The cumulative sum from the other end."""
    dy, axis = dys[0], node.inputs[1]
    assert axis is not None
    exclusive, backwards = get_int(node, "exclusive", 0), get_int(node, "reverse", 0)
    return {0: t.op("CumSum", dy, t.primal(axis), exclusive=exclusive, reverse=1 - backwards)}


@reverse("CumProd")
def _cum_prod(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """dx = (the cumulative sum of dy y from the other end) / x, for entries that are not zero."""
    (dy,), axis = dys, node.inputs[1]
    assert dy is not None and axis is not None
    exclusive, backwards = get_int(node, "exclusive", 0), get_int(node, "reverse", 0)
    products = Term(t, dy) * Term(t, t.primal(node.outputs[0]))
    sums = products.op("CumSum", t.primal(axis), exclusive=exclusive, reverse=1 - backwards)
    return {0: (sums / _x(t, node)).value}


def _x(t: Tape, node: ir.Node) -> Term:
    assert node.inputs[0] is not None
    return Term(t, t.primal(node.inputs[0]))


def _y(t: Tape, node: ir.Node, axes: list[int]) -> Term:
    assert node.inputs[0] is not None
    return Term(t, t.primal(node.outputs[0])).reshape(_kept(t.shape(node.inputs[0]), axes))


def _kept(shape: Sequence[int], axes: list[int]) -> list[int]:
    return [1 if axis in axes else size for axis, size in enumerate(shape)]


def _reduced_axes(t: Tape, node: ir.Node) -> list[int]:
    """Axes from the attribute or the input; none given means all, or none (a no-op)."""
    x = node.inputs[0]
    assert x is not None
    rank = t.rank(x)
    attribute = node.attributes.get("axes")
    if attribute is not None:
        return [axis % rank for axis in attribute.as_ints()]
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is not None:
        axes = t.constant(given)
        if axes is None:
            raise NoRuleError("axes computed from the data")
        if axes.size:
            return [int(axis) % rank for axis in axes]
    return [] if get_int(node, "noop_with_empty_axes", 0) else list(range(rank))
