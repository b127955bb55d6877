"""Operators that only move entries: reshaping, slicing, joining, padding."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_int, get_ints, get_string
from onnxrd.autodiff.registry import Cotangents, NoRuleError, reverse
from onnxrd.autodiff.tape import Array, Tape


@reverse("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,), (x, *_) = dys, node.inputs
    assert dy is not None and x is not None
    return {0: t.reshape(dy, t.shape(x))}


@reverse("Transpose")
def _transpose(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,) = dys
    assert dy is not None
    rank = t.rank(node.outputs[0])
    permutation = get_ints(node, "perm", list(range(rank))[::-1])
    return {0: t.transpose(dy, np.argsort(permutation).tolist())}


@reverse("Concat")
def _concat(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,) = dys
    assert dy is not None
    axis = get_int(node, "axis", 0) % t.rank(node.outputs[0])
    lengths = [t.shape(v)[axis] for v in node.inputs if v is not None]
    ends = list(accumulate(lengths))
    return {
        slot: t.op(
            "Slice", dy, t.ints([ends[slot] - lengths[slot]]), t.ints([ends[slot]]), t.ints([axis])
        )
        for slot in wanted
    }


@reverse("Split")
def _split(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    axis = get_int(node, "axis", 0)
    parts = [
        t.const(np.zeros(t.shape(y), t.dtype)) if dy is None else dy
        for y, dy in zip(node.outputs, dys)
    ]
    return {0: t.op("Concat", *parts, axis=axis)}


@reverse("Expand")
def _expand(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,), (x, *_) = dys, node.inputs
    assert dy is not None and x is not None
    return {0: t.unbroadcast(dy, t.shape(node.outputs[0]), t.shape(x))}


@reverse("Slice")
def _slice(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Zeros go back where entries were dropped: between (steps), before and behind."""
    (dy,), (x, *_) = dys, node.inputs
    assert dy is not None and x is not None
    shape = list(t.shape(node.outputs[0]))
    for axis, (start, _, step) in enumerate(_slice_indices(t, node, t.shape(x))):
        size, full = shape[axis], t.shape(x)[axis]
        if size == full and step == 1:
            continue
        if step < 0:
            dy = t.op(
                "Slice", dy, t.ints([-1]), t.ints([-(size + 1)]), t.ints([axis]), t.ints([-1])
            )
            start, step = start + step * (size - 1), -step
        if step > 1:
            dy = t.reshape(dy, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
            dy = _pad_axis(t, dy, len(shape) + 1, axis + 1, 0, step - 1)
            size = shape[axis] = size * step
            dy = t.reshape(dy, shape)
        dy = _pad_axis(t, dy, len(shape), axis, start, full - start - size)
        shape[axis] = full
    return {0: dy}


@reverse("Pad")
def _pad(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """A constant border: cut it off again (and put zeros where a negative pad cut)."""
    (dy,), (x, *_) = dys, node.inputs
    assert dy is not None and x is not None
    mode = get_string(node, "mode", "constant")
    if mode != "constant" or wanted != {0}:
        raise NoRuleError(f"mode {mode!r}")
    rank = t.rank(x)
    pads = _argument(t, node, 1, "pads")
    if pads is None:
        pads = np.asarray(get_ints(node, "paddings"))
    axes = _argument(t, node, 3, "axes")
    for k, axis in enumerate(range(rank) if axes is None else axes):
        dy = _pad_axis(t, dy, rank, int(axis) % rank, -int(pads[k]), -int(pads[len(pads) // 2 + k]))
    return {0: dy}


def _pad_axis(t: Tape, x: ir.Value, rank: int, axis: int, before: int, behind: int) -> ir.Value:
    """Zeros before and behind along one axis; negative numbers cut."""
    if before == behind == 0:
        return x
    pads = [0] * (2 * rank)
    pads[axis], pads[rank + axis] = before, behind
    return t.op("Pad", x, t.ints(pads))


def _slice_indices(t: Tape, node: ir.Node, shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(start, stop, step) of every axis, clipped to the shape as Python does."""
    starts, ends = _argument(t, node, 1, "starts"), _argument(t, node, 2, "ends")
    if starts is None or ends is None:
        raise NoRuleError("limits that are computed from the data")
    axes, steps = _argument(t, node, 3, "axes"), _argument(t, node, 4, "steps")
    axes = np.arange(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    result = [(0, size, 1) for size in shape]
    for start, end, axis, step in zip(starts, ends, axes, steps):
        result[axis] = slice(int(start), int(end), int(step)).indices(shape[axis])
    return result


def _argument(t: Tape, node: ir.Node, slot: int, attribute: str) -> Array | None:
    """A list of integers that newer opsets take as an input and older ones as an attribute."""
    if attribute in node.attributes:
        return np.asarray(get_ints(node, attribute))
    if slot >= len(node.inputs) or node.inputs[slot] is None:
        return None
    value = t.constant(node.inputs[slot])
    if value is None:
        raise NoRuleError(f"{attribute} computed from the data")
    return value.reshape(-1)
