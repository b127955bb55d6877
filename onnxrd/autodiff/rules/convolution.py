"""Convolutions in one to three dimensions, with groups, strides, dilations and padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_int, get_ints, get_string
from onnxrd.autodiff.registry import Cotangents, per_sample, reverse
from onnxrd.autodiff.tape import Tape


@dataclass(frozen=True)
class Window:
    """Where a sliding window goes: each list has one entry per spatial axis.

    Attributes:
        kernel: its extent.
        strides: its steps.
        dilations: the distance of its taps.
        begin: zeros added before.
        end: zeros added behind.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """Distance from a window's first tap to its last."""
        return tuple(d * (k - 1) for d, k in zip(self.dilations, self.kernel))

    @property
    def is_point(self) -> bool:
        """One tap, every position, no padding: a matrix product."""
        plain = (k == 1 and s == 1 for k, s in zip(self.kernel, self.strides))
        return all(plain) and not any(self.begin) and not any(self.end)

    @property
    def is_tiling(self) -> bool:
        """The windows lie side by side, without gaps and without padding."""
        plain = self.kernel == self.strides and set(self.dilations) == {1}
        return plain and not any(self.begin) and not any(self.end)


def window(
    node: ir.Node, spatial: Sequence[int], kernel: Sequence[int], output: Sequence[int]
) -> Window:
    """The window of a Conv or pooling node, with auto_pad resolved to explicit padding.

    Args:
        node: the operator.
        spatial: extent of its input's spatial axes.
        kernel: extent of the window.
        output: extent of its output's spatial axes.
    """
    rank = len(spatial)
    strides = get_ints(node, "strides", [1] * rank)
    dilations = get_ints(node, "dilations", [1] * rank)
    pads = get_ints(node, "pads", [0] * (2 * rank))
    begin, end = pads[:rank], pads[rank:]
    auto_pad = get_string(node, "auto_pad", "NOTSET")
    if auto_pad == "VALID":
        begin = end = [0] * rank
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        reach = [d * (k - 1) for d, k in zip(dilations, kernel)]
        needed = zip(output, strides, reach, spatial)
        total = [max(0, (o - 1) * s + r + 1 - size) for o, s, r, size in needed]
        less = [n // 2 for n in total]
        more = [n - n // 2 for n in total]
        begin, end = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
    return Window(tuple(kernel), tuple(strides), tuple(dilations), tuple(begin), tuple(end))


@reverse("Conv")
def _conv(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,) = dys
    assert dy is not None
    result = {}
    if 0 in wanted:
        result[0] = _input_gradient(t, node, dy)
    if 1 in wanted:
        x, w, _ = _shapes(t, node)
        result[1] = t.total(_weight_gradient(t, node, dy), (x[0], *w))
    if 2 in wanted:
        result[2] = t.sum(dy, [0, *_spatial_axes(t, node)])
    return result


@per_sample(("Conv", 1))
def _weight_gradient(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """[N, O, C/g, *k]: the products of dY with the windows of X."""
    assert node.inputs[0] is not None
    x, w, y = _shapes(t, node)
    view = window(node, x[2:], w[2:], y[2:])
    depthwise = w[1] == 1 and get_int(node, "group", 1) > 1
    if depthwise and int(np.prod(w[2:])) >= _MANY_TAPS:
        return _channels_apart(t, node, dy, view)
    return window_products(t, dy, y, t.primal(node.inputs[0]), x, view, get_int(node, "group", 1))


@per_sample(("Conv", 2))
def _bias_gradient(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    return t.sum(dy, _spatial_axes(t, node))


_MANY_TAPS = 25
"""Of a depthwise kernel, from which on copying windows is dearer than a convolution by dY."""


def _channels_apart(t: Tape, node: ir.Node, dy: ir.Value, view: Window) -> ir.Value:
    """Depthwise: each channel of each sample convolved with its own dY, strides as dilations."""
    assert node.inputs[0] is not None
    x, w, y = _shapes(t, node)
    product = t.op(
        "Conv",
        t.reshape(t.primal(node.inputs[0]), (1, x[0] * x[1], *x[2:])),
        t.reshape(dy, (x[0] * w[0], 1, *y[2:])),
        group=x[0] * x[1],
        strides=view.dilations,
        dilations=view.strides,
        pads=(*view.begin, *view.end),
    )
    axes = range(2, len(w))
    product = t.op("Slice", product, t.ints([0] * len(axes)), t.ints(w[2:]), t.ints(axes))
    return t.reshape(product, (x[0], *w))


def window_products(
    t: Tape,
    rows: ir.Value,
    rows_shape: Sequence[int],
    image: ir.Value,
    shape: Sequence[int],
    view: Window,
    group: int,
) -> ir.Value:
    """Per-sample gradients of a kernel: Σ over places of rows times windows.

    Args:
        t: the tape.
        rows: [N, A, *places].
        rows_shape: its shape.
        image: [N, B, *spatial], in which a window lies at every place.
        shape: its shape.
        view: the windows.
        group: in how many groups channels of the two meet.

    Returns: [N, A, B/group, *kernel].
    """
    n, a, *places = rows_shape
    b, taps, area = shape[1], int(np.prod(view.kernel)), int(np.prod(places))
    left = t.reshape(rows, (n, group, a // group, area))
    right = t.reshape(windows(t, image, b, view), (n, group, b // group * taps, area))
    product = t.op("MatMul", left, t.transpose(right, (0, 1, 3, 2)))
    return t.reshape(product, (n, a, b // group, *view.kernel))


def windows(t: Tape, image: ir.Value, channels: int, view: Window) -> ir.Value:
    """[N, C·k, *places]: the windows of an image, by a convolution with one-hot kernels."""
    if view.is_point:
        return image
    taps = int(np.prod(view.kernel))
    one_hot = np.eye(taps, dtype=t.dtype).reshape(taps, 1, *view.kernel)
    return t.op(
        "Conv",
        image,
        np.tile(one_hot, (channels, *[1] * (one_hot.ndim - 1))),
        group=channels,
        strides=view.strides,
        dilations=view.dilations,
        pads=(*view.begin, *view.end),
    )


def _input_gradient(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """A convolution with the mirrored kernel at stride 1, else a transposed convolution."""
    x, w, y = _shapes(t, node)
    assert node.inputs[1] is not None
    view = window(node, x[2:], w[2:], y[2:])
    group = get_int(node, "group", 1)
    kernel = t.constant(node.inputs[1])
    begin = tuple(r - p for r, p in zip(view.reach, view.begin))
    end = tuple(r - p for r, p in zip(view.reach, view.end))
    if kernel is not None and set(view.strides) == {1} and min(begin + end) >= 0:
        return t.op(
            "Conv",
            dy,
            _mirrored(kernel, group).astype(t.dtype),
            group=group,
            dilations=view.dilations,
            pads=(*begin, *end),
        )
    covered = [
        (o - 1) * s + r + 1 - b - e
        for o, s, r, b, e in zip(y[2:], view.strides, view.reach, view.begin, view.end)
    ]
    return t.op(
        "ConvTranspose",
        dy,
        t.primal(node.inputs[1]),
        group=group,
        strides=view.strides,
        dilations=view.dilations,
        pads=(*view.begin, *view.end),
        output_padding=[size - c for size, c in zip(x[2:], covered)],
    )


def _mirrored(kernel: np.ndarray, group: int) -> np.ndarray:
    """[O, C/g, *k] → [C, O/g, *k] with every spatial axis reversed."""
    o, c, *spatial = kernel.shape
    swapped = kernel.reshape(group, o // group, c, *spatial).swapaxes(1, 2)
    flipped = np.flip(swapped, axis=tuple(range(3, 3 + len(spatial))))
    return np.ascontiguousarray(flipped.reshape(group * c, o // group, *spatial))


def _spatial_axes(t: Tape, node: ir.Node) -> list[int]:
    return list(range(2, t.rank(node.outputs[0])))


def _shapes(t: Tape, node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    assert node.inputs[0] is not None and node.inputs[1] is not None
    return t.shape(node.inputs[0]), t.shape(node.inputs[1]), t.shape(node.outputs[0])
