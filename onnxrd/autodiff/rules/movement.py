"""Operators that only move entries: reshaping, slicing, joining, padding."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_int, get_ints, get_string
from onnxrd.autodiff.registry import Cotangents, NoRuleError, per_sample, reverse
from onnxrd.autodiff.rules.along import pad_axis, transposed_selection
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
    parts = [t.zeros(t.shape(y)) if dy is None else dy for y, dy in zip(node.outputs, dys)]
    return {0: t.op("Concat", *parts, axis=axis)}


@reverse("Expand")
def _expand(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,), (x, *_) = dys, node.inputs
    assert dy is not None and x is not None
    return {0: t.unbroadcast(dy, t.shape(node.outputs[0]), t.shape(x))}


@per_sample(("Expand", 0))
def _expanded_weight(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """A weight repeated for every sample, such as a class token."""
    x, shape = node.inputs[0], t.shape(node.outputs[0])
    assert x is not None
    target = t.shape(x)
    if shape[0] != t.samples or (len(target) == len(shape) and target[0] != 1):
        raise NoRuleError("the sample axis is not the first")
    return t.unbroadcast(dy, shape, target, batched=True)


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
            dy = pad_axis(t, dy, len(shape) + 1, axis + 1, 0, step - 1)
            size = shape[axis] = size * step
            dy = t.reshape(dy, shape)
        dy = pad_axis(t, dy, len(shape), axis, start, full - start - size)
        shape[axis] = full
    return {0: dy}


@reverse("Pad")
def _pad(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """A constant border is cut off again (zeros go where a negative pad cut); copies are added."""
    (dy,), (x, *_) = dys, node.inputs
    assert dy is not None and x is not None
    mode, rank = get_string(node, "mode", "constant"), t.rank(x)
    pads = _argument(t, node, 1, "pads")
    if pads is None:
        pads = np.asarray(get_ints(node, "paddings"))
    axes = _argument(t, node, 3, "axes")
    shape, result = list(t.shape(node.outputs[0])), dy
    for k, axis in enumerate(range(rank) if axes is None else axes % rank):
        before, behind, length = int(pads[k]), int(pads[len(pads) // 2 + k]), t.shape(x)[axis]
        if mode == "constant":
            result = pad_axis(t, result, rank, axis, -before, -behind)
        elif before or behind:
            if min(before, behind) < 0:
                raise NoRuleError(f"negative padding with mode {mode!r}")
            chosen = np.pad(np.arange(length), (before, behind), _NUMPY_MODES[mode])
            result = transposed_selection(t, result, shape, axis, chosen, length)
        shape[axis] = length
    if 2 not in wanted:
        return {0: result}
    inside = t.sum(result, list(range(rank)))
    return {0: result, 2: t.op("Sub", t.sum(dy, list(range(rank))), inside)}


_NUMPY_MODES: dict[str, Literal["edge", "reflect", "wrap"]] = {
    "edge": "edge",
    "reflect": "reflect",
    "wrap": "wrap",
}


@reverse("Tile")
def _tile(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """The copies are added."""
    (dy,), (x, *_) = dys, node.inputs
    assert dy is not None and x is not None
    pairs = zip(t.shape(x), t.shape(node.outputs[0]))
    split = [n for size, out in pairs for n in (out // max(size, 1), size)]
    return {0: t.sum(t.reshape(dy, split), list(range(0, len(split), 2)))}


@reverse("SpaceToDepth", "DepthToSpace")
def _blocks(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Each is the inverse of the other; "CRD" orders the channels another way round."""
    (dy,), x = dys, node.inputs[0]
    assert dy is not None and x is not None
    block = get_int(node, "blocksize", 1)
    mode = get_string(node, "mode", "DCR")
    if node.op_type == "SpaceToDepth":
        return {0: t.op("DepthToSpace", dy, blocksize=block, mode=mode)}
    if mode == "DCR":
        return {0: t.op("SpaceToDepth", dy, blocksize=block)}
    n, c, h, w = t.shape(x)
    dy = t.reshape(dy, (n, c // block**2, h, block, w, block))
    return {0: t.reshape(t.transpose(dy, (0, 1, 3, 5, 2, 4)), (n, c, h, w))}


@reverse("ReverseSequence", "Trilu")
def _own_transpose(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Operators whose matrix is symmetric: they go back by themselves."""
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    others = [None if value is None else t.primal(value) for value in node.inputs[1:]]
    return {0: t.op(node.op_type, dys[0], *others, **attributes)}


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
