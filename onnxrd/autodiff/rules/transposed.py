"""ConvTranspose, the transpose of Conv: what is the input there is the output here."""

from collections.abc import Sequence

import onnx_ir as ir

from onnxrd.autodiff.attributes import get_int, get_ints, get_string
from onnxrd.autodiff.registry import Cotangents, NoRuleError, per_sample, reverse
from onnxrd.autodiff.rules.convolution import Window, window, window_products, windows
from onnxrd.autodiff.tape import Tape


@reverse("ConvTranspose")
def _conv_transpose(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,) = dys
    assert dy is not None
    result = {}
    if 0 in wanted:
        result[0] = _input_gradient(t, node, dy)
    if 1 in wanted:
        x, w = node.inputs[0], node.inputs[1]
        assert x is not None and w is not None
        result[1] = t.total(_weight_gradient(t, node, dy), (t.shape(x)[0], *t.shape(w)))
    if 2 in wanted:
        result[2] = t.sum(_bias_gradient(t, node, dy), [0])
    return result


def _input_gradient(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """The convolution of which this is the transpose."""
    assert node.inputs[1] is not None
    view = _window(t, node)
    return t.op(
        "Conv",
        dy,
        t.primal(node.inputs[1]),
        group=get_int(node, "group", 1),
        strides=view.strides,
        dilations=view.dilations,
        pads=(*view.begin, *view.end),
    )


@per_sample(("ConvTranspose", 1))
def _weight_gradient(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """[N, C, O/g, *k]: the products of X with the windows of dY."""
    x = node.inputs[0]
    assert x is not None
    view = _window(t, node)
    shape, group = t.shape(node.outputs[0]), get_int(node, "group", 1)
    return window_products(t, t.primal(x), t.shape(x), dy, shape, view, group)


@per_sample(("ConvTranspose", 2))
def _bias_gradient(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    return t.sum(dy, list(range(2, t.rank(node.outputs[0]))))


def _window(t: Tape, node: ir.Node) -> Window:
    """The window of the convolution from the output to the input, with explicit padding.

    What output_padding added is less than a stride (onnxruntime refuses more), so that no further
    window fits there.
    """
    x, w = node.inputs[0], node.inputs[1]
    assert x is not None and w is not None
    spatial, kernel, out = t.shape(x)[2:], t.shape(w)[2:], t.shape(node.outputs[0])[2:]
    rank = len(spatial)
    strides = get_ints(node, "strides", [1] * rank)
    dilations = get_ints(node, "dilations", [1] * rank)
    extra = get_ints(node, "output_padding", [0] * rank)
    sizes = zip(spatial, strides, dilations, kernel, strict=True)
    needed = [s * (n - 1) + d * (k - 1) + 1 for n, s, d, k in sizes]
    pads = get_ints(node, "pads", [0] * (2 * rank))
    begin = pads[:rank]
    auto_pad = get_string(node, "auto_pad", "NOTSET")
    if auto_pad != "NOTSET" or "output_shape" in node.attributes:
        total = [max(0, n + more - y) for n, more, y in zip(needed, extra, out)]
        less, rest = [n // 2 for n in total], [n - n // 2 for n in total]
        begin = less if auto_pad == "SAME_UPPER" else rest
    end = [max(0, n - y - b) for n, y, b in zip(needed, out, begin)]
    return Window(tuple(kernel), tuple(strides), tuple(dilations), tuple(begin), tuple(end))


@reverse("Col2Im")
def _columns(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Columns that were added up to an image are its windows."""
    (dy,), (x, *_) = dys, node.inputs
    assert dy is not None and x is not None
    kernel = t.constant(node.inputs[2])
    if kernel is None:
        raise NoRuleError("blocks computed from the data")
    view = window(node, t.shape(node.outputs[0])[2:], kernel.tolist(), ())
    return {0: t.reshape(windows(t, dy, t.shape(node.outputs[0])[1], view), t.shape(x))}
