"""Pooling: average and maximum, over windows and over everything."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_int, get_ints
from onnxrd.autodiff.registry import Cotangents, NoRuleError, reverse
from onnxrd.autodiff.rules.convolution import Window, window
from onnxrd.autodiff.tape import Tape


@reverse("GlobalAveragePool")
def _global_average(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,), (x,) = dys, node.inputs
    assert dy is not None and x is not None
    shape = t.shape(x)
    scaled = t.op("Mul", dy, 1.0 / float(np.prod(shape[2:])))
    return {0: t.op("Expand", scaled, t.ints(shape))}


@reverse("AveragePool")
def _average(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Each output gives an equal share to the entries it was the mean of."""
    (dy,), (x,) = dys, node.inputs
    assert dy is not None and x is not None
    view, size = _view(t, node), t.shape(x)
    if set(view.dilations) != {1} or get_int(node, "ceil_mode", 0):
        raise NoRuleError("dilations or ceil_mode")
    taps = float(np.prod(view.kernel))
    if get_int(node, "count_include_pad", 0) or not any(view.begin + view.end):
        dy = t.op("Mul", dy, 1.0 / taps)
    else:
        dy = t.op("Mul", dy, (1.0 / _counts(view, size[2:])).astype(t.dtype))
    return {0: _spread(t, dy, view, size, t.shape(node.outputs[0]))}


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
    plane = int(np.prod(shape[2:]))
    if view.kernel == view.strides and not any(view.begin + view.end) and not ceil:
        return {0: _max_tiles(t, dy, indices, view, shape, out)}
    places = int(np.prod(out[2:]))
    flat = t.op("Mod", t.reshape(indices, (*shape[:2], places)), t.const(np.int64(plane)))
    zeros = t.op("Expand", 0.0, t.ints((*shape[:2], plane)))
    dy = t.reshape(dy, (*shape[:2], places))
    scattered = t.op("ScatterElements", zeros, flat, dy, axis=2, reduction="add")
    return {0: t.reshape(scattered, shape)}


def _max_tiles(
    t: Tape,
    dy: ir.Value,
    indices: ir.Value,
    view: Window,
    shape: tuple[int, ...],
    out: tuple[int, ...],
) -> ir.Value:
    """Windows that tile the input: compare each place with the index of its window's maximum."""
    spatial = [o * k for o, k in zip(out[2:], view.kernel)]
    grid = np.arange(int(np.prod(shape[2:]))).reshape(shape[2:])
    grid = grid[tuple(slice(0, size) for size in spatial)]
    split = [n for o, k in zip(out[2:], view.kernel) for n in (o, k)]
    grid = grid.reshape(1, 1, *split).astype(np.int32)
    coarse = [n for o in out[2:] for n in (o, 1)]
    plane = t.const(np.int64(np.prod(shape[2:])))
    chosen = t.op("Cast", t.op("Mod", indices, plane), to=int(ir.DataType.INT32))
    hit = t.op("Equal", t.reshape(chosen, (*shape[:2], *coarse)), grid)
    spread = t.op("Mul", t.mask(hit), t.reshape(dy, (*shape[:2], *coarse)))
    result = t.reshape(spread, (*shape[:2], *spatial))
    missing = [size - s for size, s in zip(shape[2:], spatial)]
    if any(missing):
        result = t.op("Pad", result, t.ints([0] * (len(shape) + 2) + missing))
    return result


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


def _counts(view: Window, spatial: Sequence[int]) -> np.ndarray:
    """[1, 1, *output]: how many real entries each window covers."""
    counts = np.ones((1, 1), np.float64)
    for size, k, s, begin, end in zip(spatial, view.kernel, view.strides, view.begin, view.end):
        starts = np.arange(0, size + begin + end - k + 1, s) - begin
        covered = np.minimum(starts + k, size) - np.maximum(starts, 0)
        counts = counts[..., None] * covered.reshape(*[1] * (counts.ndim), -1)
    return counts


def _spread(
    t: Tape, dy: ir.Value, view: Window, shape: tuple[int, ...], out: tuple[int, ...]
) -> ir.Value:
    """Every window's value added to all its places: repetition, or a transposed convolution."""
    covered = [
        (o - 1) * s + k - b - e
        for o, s, k, b, e in zip(out[2:], view.strides, view.kernel, view.begin, view.end)
    ]
    missing = [size - c for size, c in zip(shape[2:], covered)]
    if view.kernel == view.strides and not any(view.begin + view.end):
        coarse = [n for o in out[2:] for n in (o, 1)]
        fine = [n for o, k in zip(out[2:], view.kernel) for n in (o, k)]
        spread = t.op("Expand", t.reshape(dy, (*shape[:2], *coarse)), t.ints((*shape[:2], *fine)))
        spread = t.reshape(spread, (*shape[:2], *covered))
        if any(missing):
            spread = t.op("Pad", spread, t.ints([0] * (len(shape) + 2) + missing))
        return spread
    planes = t.reshape(dy, (shape[0] * shape[1], 1, *out[2:]))
    spread = t.op(
        "ConvTranspose",
        planes,
        np.ones((1, 1, *view.kernel), t.dtype),
        strides=view.strides,
        pads=(*view.begin, *view.end),
        output_padding=missing,
    )
    return t.reshape(spread, shape)
