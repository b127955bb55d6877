"""Pooling: averages, maxima and norms, over windows and over everything."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.alone import run_alone
from onnxrd.autodiff.attributes import get_int, get_ints
from onnxrd.autodiff.registry import Cotangents, NoRuleError, reverse
from onnxrd.autodiff.rules.convolution import Window, window
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.terms import Term


@reverse("GlobalAveragePool")
def _global_average(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,), (x,) = dys, node.inputs
    assert dy is not None and x is not None
    spatial = t.shape(x)[2:]
    return {0: t.op("Mul", dy, np.full((1, 1, *spatial), 1 / np.prod(spatial), t.dtype))}


@reverse("AveragePool")
def _average(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Each output gives an equal share to the entries it was the mean of."""
    (dy,), (x,) = dys, node.inputs
    assert dy is not None and x is not None
    view, spatial = _view(t, node), t.shape(x)[2:]
    shares = _shares(t, node, view, spatial)
    if shares.min() == shares.max():
        dy = t.op("Mul", dy, float(shares.min()))
    else:
        dy = t.op("Mul", dy, shares.astype(t.dtype))
    return {0: _spread(t, dy, view, t.shape(x), t.shape(node.outputs[0]))}


def _shares(t: Tape, node: ir.Node, view: Window, spatial: Sequence[int]) -> np.ndarray:
    """[1, 1, *output]: what one entry contributes to an output.

    Versions of onnxruntime differ in what they divide by where a window overhangs, so the operator
    itself is asked: of ones it makes (entries covered) / (what it divides by).
    """
    ones = np.ones((1, 1, *spatial), np.float32)
    means = run_alone(node, t.trace.opset, [ones]).astype(np.float64)
    covered = np.ones((1, 1))
    for axis, size in enumerate(spatial):
        starts = np.arange(means.shape[2 + axis]) * view.strides[axis] - view.begin[axis]
        taps = starts[:, None] + np.arange(view.kernel[axis]) * view.dilations[axis]
        counts = ((taps >= 0) & (taps < size)).sum(axis=1)
        covered = covered[..., None] * counts
    return np.where(covered > 0, means / np.maximum(covered, 1), 0.0)


@reverse("LpPool", "GlobalLpPool")
def _lp(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """y = (Σ |x|^p)^(1/p): dx = sign(x) |x|^(p−1) · Σ over windows of dy y^(1−p)."""
    (dy,), (value,) = dys, node.inputs
    assert dy is not None and value is not None
    p, x = get_int(node, "p", 2), Term(t, t.primal(value))
    y = Term(t, t.primal(node.outputs[0])).op("Max", _TINY)
    shared = (Term(t, dy) * y.op("Pow", float(1 - p))).value
    if node.op_type == "LpPool":
        shape, out = t.shape(value), t.shape(node.outputs[0])
        shared = _spread(t, shared, _view(t, node), shape, out)
    slope = x.op("Sign") * x.op("Abs").op("Pow", float(p - 1))
    return {0: (slope * Term(t, shared)).value}


_TINY = 1e-12
"""Stands in for a norm of zero, whose entries get nothing."""


@reverse("MaxPool")
def _max(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """All of it goes to the first of the largest entries, as in the forward pass's Indices."""
    dy, x = dys[0], node.inputs[0]
    assert dy is not None and x is not None
    if len(node.outputs) > 1 and len(dys) > 1 and dys[1] is not None:
        raise NoRuleError("a gradient through Indices")
    view, shape, out = _view(t, node), t.shape(x), t.shape(node.outputs[0])
    ceil = get_int(node, "ceil_mode", 0)
    if view.is_tiling and not ceil:
        return {0: _max_of_tiles(t, node, dy, view)}
    _, indices = t.op(
        "MaxPool",
        t.primal(x),
        outputs=2,
        kernel_shape=view.kernel,
        strides=view.strides,
        dilations=view.dilations,
        pads=(*view.begin, *view.end),
        ceil_mode=ceil,
    )
    plane, places = int(np.prod(shape[2:])), int(np.prod(out[2:]))
    flat = t.op("Mod", t.reshape(indices, (*shape[:2], places)), t.const(np.int64(plane)))
    zeros = t.zeros((*shape[:2], plane))
    dy = t.reshape(dy, (*shape[:2], places))
    scattered = t.op("ScatterElements", zeros, flat, dy, axis=2, reduction="add")
    return {0: t.reshape(scattered, shape)}


def _max_of_tiles(t: Tape, node: ir.Node, dy: ir.Value, view: Window) -> ir.Value:
    """Windows that tile the input: compare each entry with its window's maximum.

    (Asking for Indices is slow: onnxruntime then leaves its fast kernel.) The entries that are
    equal to the maximum are numbered downwards, so that another maximum finds the first of them.
    """
    x = node.inputs[0]
    assert x is not None
    shape, rank = t.shape(x), t.rank(x)
    out = t.shape(node.outputs[0])[2:]
    tiled = [o * k for o, k in zip(out, view.kernel)]
    missing = [size - n for size, n in zip(shape[2:], tiled)]
    inside = t.primal(x)
    if any(missing):
        inside = t.op("Pad", inside, t.ints([0] * (rank + 2) + [-n for n in missing]))
    hit = Term(t, inside).equals(Term(t, _enlarged(t, t.primal(node.outputs[0]), view)))
    taps = int(np.prod(view.kernel))
    numbers = np.arange(taps, 0, -1, dtype=t.dtype).reshape(view.kernel)
    numbered = hit * Term(t, t.const(np.tile(numbers, out)[None, None]))
    first = numbered.op("MaxPool", kernel_shape=view.kernel, strides=view.strides).value
    chosen = numbered.equals(Term(t, _enlarged(t, first, view)))
    dx = (chosen * Term(t, _enlarged(t, dy, view))).value
    return t.op("Pad", dx, t.ints([0] * (rank + 2) + missing)) if any(missing) else dx


def _enlarged(t: Tape, x: ir.Value, view: Window) -> ir.Value:
    """Every entry repeated over the tile it stands for."""
    return t.op(
        "Resize",
        x,
        None,
        np.array([1, 1, *view.kernel], np.float32),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


@reverse("GlobalMaxPool")
def _global_max(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,), (x,) = dys, node.inputs
    assert dy is not None and x is not None
    shape = t.shape(x)
    flat = (*shape[:2], int(np.prod(shape[2:])))
    first = t.op("ArgMax", t.reshape(t.primal(x), flat), axis=2, keepdims=1)
    places = t.const(np.arange(flat[2]).reshape(1, 1, -1))
    mask = t.mask(t.op("Equal", first, places))
    spread = t.op("Mul", mask, t.reshape(dy, (*shape[:2], 1)))
    return {0: t.reshape(spread, shape)}


def _view(t: Tape, node: ir.Node) -> Window:
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    return window(node, t.shape(x)[2:], get_ints(node, "kernel_shape"), t.shape(y)[2:])


def _spread(
    t: Tape, dy: ir.Value, view: Window, shape: tuple[int, ...], out: tuple[int, ...]
) -> ir.Value:
    """Every window's value added to all its places: repetition, or a transposed convolution."""
    covered = [
        (o - 1) * s + r + 1 - b for o, s, r, b in zip(out[2:], view.strides, view.reach, view.begin)
    ]
    missing = [max(0, size - c) for size, c in zip(shape[2:], covered)]
    beyond = [max(0, c - size) for size, c in zip(shape[2:], covered)]
    if view.is_tiling and not any(beyond):
        spread = _enlarged(t, dy, view)
        if any(missing):
            spread = t.op("Pad", spread, t.ints([0] * (len(shape) + 2) + missing))
        return spread
    spread = t.op(
        "ConvTranspose",
        t.reshape(dy, (shape[0] * shape[1], 1, *out[2:])),
        np.ones((1, 1, *view.kernel), t.dtype),
        strides=view.strides,
        dilations=view.dilations,
        pads=(*view.begin, *beyond),
        output_padding=missing,
    )
    return t.reshape(spread, shape)
