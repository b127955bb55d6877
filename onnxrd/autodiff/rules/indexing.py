"""Operators that choose entries by index, or put them somewhere."""

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff import tables
from onnxrd.autodiff.attributes import get_int, get_string
from onnxrd.autodiff.registry import Cotangents, NoRuleError, per_sample, reverse, squares
from onnxrd.autodiff.rules.along import transposed_selection
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.terms import Term


@reverse("Gather")
def _gather(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Every slice of dy is added where it came from."""
    (dy,), (x, index) = dys, node.inputs
    assert dy is not None and x is not None and index is not None
    shape = t.shape(x)
    axis = get_int(node, "axis", 0) % len(shape)
    rows, constant = prod(t.shape(index)), t.constant(index)
    if constant is not None and (rows * shape[axis] <= _SMALL or _is_unique(constant, shape[axis])):
        flat = (*shape[:axis], rows, *shape[axis + 1 :])
        chosen = constant.reshape(-1) % shape[axis]
        return {0: transposed_selection(t, t.reshape(dy, flat), flat, axis, chosen, shape[axis])}
    before, behind = prod(shape[:axis]), prod(shape[axis + 1 :])
    updates = t.transpose(t.reshape(dy, (before, rows, behind)), (1, 0, 2))
    added = _add_rows(t, updates, t.primal(index), rows, (shape[axis], before, behind))
    return {0: t.reshape(added if before == 1 else t.transpose(added, (1, 0, 2)), shape)}


_SMALL = 1 << 18
"""Entries of a matrix that may stand for repeated constant indices."""


def _is_unique(index: np.ndarray, length: int) -> bool:
    return bool(np.unique(index % length).size == index.size)


def _add_rows(
    t: Tape, updates: ir.Value, index: ir.Value, rows: int, shape: Sequence[int]
) -> ir.Value:
    """Zeros of a shape, with updates [rows, …] added to the rows of an index.

    They are as large as a table of embeddings; zeros that depend on nothing would be computed
    beforehand, and kept.
    """
    index = t.op("Cast", t.reshape(index, (rows, 1)), to=int(ir.DataType.INT64))
    zero = t.mask(t.op("Less", t.slice(index, 0, 0, 1), t.slice(index, 0, 0, 1)))
    zeros = t.op("Expand", t.reshape(zero, ()), t.ints(shape))
    added = t.op("ScatterND", zeros, index, updates, reduction="add")
    tables.mark(added)
    return added


@squares(("Gather", 0))
def _embedding_squares(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """An embedding: a sample's repeated tokens are added up before squaring.

    With E_ij = 1 where tokens i and j of a sample are equal, row i of E dY is the gradient of
    token i. It comes up as often as the token does, each time with that share of its square.
    """
    table, index = node.inputs[0], node.inputs[1]
    assert table is not None and index is not None
    shape, tokens = t.shape(table), t.shape(index)
    if get_int(node, "axis", 0) or not tokens or tokens[0] != t.samples:
        raise NoRuleError("an index that does not begin with the sample axis")
    count, width = prod(tokens[1:]), prod(shape[1:])
    token = t.op("Mod", t.primal(index), t.const(np.array(shape[0], t.trace.dtypes[index])))
    rows = t.reshape(dy, (t.samples, count, width))
    if count > 1:
        column, row = t.reshape(token, (-1, count, 1)), t.reshape(token, (-1, 1, count))
        same = t.mask(t.op("Equal", column, row))
        rows = t.op("MatMul", same, rows)
        rows = t.op("Div", t.op("Mul", rows, rows), t.sum(same, [2], keepdims=True))
    else:
        rows = t.op("Mul", rows, rows)
    flat = t.reshape(rows, (t.samples * count, width))
    added = _add_rows(t, flat, token, t.samples * count, (shape[0], width))
    return added if len(shape) == 2 else t.reshape(added, shape)


@per_sample(("Gather", 0))
def _embedding_weight(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """[N, …, D] → [N, V, D]: sample n has a table of its own, from row n·V on."""
    table, index = node.inputs[0], node.inputs[1]
    assert table is not None and index is not None
    shape, tokens = t.shape(table), t.shape(index)
    if get_int(node, "axis", 0) or not tokens or tokens[0] != t.samples:
        raise NoRuleError("an index that does not begin with the sample axis")
    count, width = prod(tokens[1:]), prod(shape[1:])
    dtype = t.trace.dtypes[index]
    token = t.op("Mod", t.primal(index), t.const(np.array(shape[0], dtype)))
    first = np.arange(t.samples, dtype=dtype).reshape(-1, 1) * shape[0]
    rows = t.op("Add", t.reshape(token, (t.samples, count)), t.const(first.astype(dtype)))
    flat = t.reshape(dy, (t.samples * count, width))
    added = _add_rows(t, flat, rows, t.samples * count, (t.samples * shape[0], width))
    return t.reshape(added, (t.samples, *shape))


@reverse("GatherElements", "GatherND", "Compress")
def _places(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """The same operator applied to the numbers of the places says where entries came from."""
    (dy,), (x, *others) = dys, node.inputs
    assert dy is not None and x is not None
    shape = t.shape(x)
    zero, one, end = np.array(0), np.array(1), np.array(prod(shape))
    numbers = t.reshape(t.op("Range", zero, end, one), shape)
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    indices = [t.primal(other) for other in others if other is not None]
    places = t.reshape(t.op(node.op_type, numbers, *indices, **attributes), (-1,))
    zeros = t.zeros([prod(shape)])
    dx = t.op("ScatterElements", zeros, places, t.reshape(dy, (-1,)), reduction="add")
    return {0: t.reshape(dx, shape)}


@reverse("TopK")
def _top_k(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    dy, x = dys[0], node.inputs[0]
    assert dy is not None and x is not None
    if len(node.outputs) < 2 or not node.outputs[1].name:
        raise NoRuleError("no indices among its outputs")
    indices = node.outputs[1]
    zeros = t.zeros(t.shape(x))
    axis = get_int(node, "axis", -1)
    return {0: t.op("ScatterElements", zeros, t.primal(indices), dy, axis=axis)}


@reverse("ScatterElements", "ScatterND", "Scatter")
def _scatter(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """What was overwritten gets nothing, what was put there gets the cotangent of its place."""
    (dy,), (_, index, updates) = dys, node.inputs
    assert dy is not None and index is not None and updates is not None
    reduction = get_string(node, "reduction", "none")
    nd = node.op_type == "ScatterND"
    axis = None if nd else get_int(node, "axis", 0)
    gather = "GatherND" if nd else "GatherElements"
    if reduction not in ("none", "add"):
        return _reduced(t, node, dy, gather, axis)
    result = {}
    if 0 in wanted and reduction == "none":
        zeros = t.zeros(t.shape(updates))
        scatter = "ScatterND" if nd else "ScatterElements"
        result[0] = t.op(scatter, dy, t.primal(index), zeros, axis=axis)
    elif 0 in wanted:
        result[0] = dy
    if 2 in wanted:
        result[2] = t.op(gather, dy, t.primal(index), axis=axis)
    return result


def _reduced(t: Tape, node: ir.Node, dy: ir.Value, gather: str, axis: int | None) -> Cotangents:
    """Products: dy · y without one's own factor.  Extremes: dy to whichever is equal to y."""
    x, index, updates = (Term(t, t.primal(v)) for v in node.inputs if v is not None)
    y = Term(t, t.primal(node.outputs[0]))
    there, y_there = (Term(t, v).op(gather, index, axis=axis) for v in (dy, y.value))
    if get_string(node, "reduction", "") != "mul":
        hit, hit_there = x.equals(y), updates.equals(y_there)
        return {0: (Term(t, dy) * hit).value, 2: (there * hit_there).value}
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    ones = Term(t, t.op("Expand", 1.0, t.ints(t.shape(node.outputs[0]))))
    factors = ones.op(node.op_type, index, updates, **attributes)
    return {0: (Term(t, dy) * factors).value, 2: (there * y_there / updates).value}


@reverse("OneHot")
def _one_hot(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """The two values, off and on, get what arrives where they stand."""
    (dy,), (index, depth, _) = dys, node.inputs
    assert dy is not None and index is not None and depth is not None
    levels = np.array([0, 1], t.dtype)
    axis = get_int(node, "axis", -1)
    hot = Term(t, t.op("OneHot", t.primal(index), t.primal(depth), levels, axis=axis))
    axes = list(range(t.rank(node.outputs[0])))
    parts = [t.reshape((Term(t, dy) * mask).sum(axes).value, (1,)) for mask in (1 - hot, hot)]
    return {2: t.op("Concat", *parts, axis=0)}


@reverse("MaxUnpool")
def _max_unpool(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Each entry was put where its index says, counted over the whole output."""
    (dy,), (x, index, *_) = dys, node.inputs
    assert dy is not None and x is not None and index is not None
    chosen = t.reshape(t.primal(index), (-1,))
    return {0: t.reshape(t.op("Gather", t.reshape(dy, (-1,)), chosen), t.shape(x))}
