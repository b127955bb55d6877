"""Convolutions and transposed convolutions."""

from tests.autodiff.cases.case import Case, ints, normal


def _conv(x, w, bias=True, opset=17, **attributes):
    b = (normal(w[0], seed=5),) if bias else ()
    inputs = (normal(*x), normal(*w, seed=2), *b)
    return Case("Conv", inputs, attributes, opset=opset, weights=(1, 2) if bias else (1,))


def _transposed(x, w, bias=True, opset=17, **attributes):
    b = (normal(w[1] * attributes.get("group", 1), seed=5),) if bias else ()
    inputs = (normal(*x), normal(*w, seed=2), *b)
    weights = (1, 2) if bias else (1,)
    return Case("ConvTranspose", inputs, attributes, opset=opset, weights=weights)


CASES = [
    _conv((3, 4, 7, 6), (5, 4, 3, 3), pads=[1, 1, 1, 1]),
    _conv((3, 4, 7, 6), (5, 4, 1, 1), bias=False, opset=7),
    _conv((3, 4, 7, 6), (5, 4, 1, 1), strides=[2, 2], opset=22),
    _conv((3, 4, 7, 6), (5, 4, 1, 1), pads=[1, 0, 0, 1]),
    _conv((3, 4, 8, 7), (5, 4, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
    _conv((3, 4, 8, 8), (5, 4, 2, 2), strides=[3, 3]),
    _conv((3, 3, 9, 9), (4, 3, 7, 7), strides=[2, 2], pads=[3, 3, 3, 3]),
    _conv((3, 4, 9, 9), (5, 4, 3, 2), strides=[3, 2], pads=[0, 1, 2, 0]),
    _conv((3, 4, 9, 9), (5, 4, 3, 3), dilations=[2, 2], pads=[2, 1, 2, 3]),
    _conv((3, 4, 9, 9), (5, 4, 3, 3), dilations=[2, 1], strides=[2, 2], pads=[1, 1, 1, 1]),
    _conv((3, 6, 7, 7), (4, 3, 3, 3), group=2, pads=[1, 1, 1, 1]),
    _conv((3, 6, 7, 7), (4, 3, 3, 3), group=2, strides=[2, 2]),
    _conv((3, 6, 7, 7), (6, 1, 3, 3), group=6, pads=[1, 1, 1, 1]),
    _conv((3, 6, 7, 7), (6, 1, 3, 3), group=6, strides=[2, 2], pads=[0, 1, 1, 1]),
    _conv((3, 6, 9, 9), (6, 1, 3, 3), group=6, dilations=[2, 2], pads=[2, 2, 2, 2]),
    _conv((3, 6, 7, 7), (12, 1, 5, 5), group=6, strides=[2, 2], pads=[2, 2, 2, 2]),
    _conv((3, 4, 13, 9), (4, 1, 5, 5), group=4, dilations=[2, 1], pads=[3, 0, 1, 2]),
    _conv((3, 4, 40), (4, 1, 26), group=4, strides=[3], pads=[2, 0]),
    _conv((3, 1, 9, 9), (4, 1, 5, 5), pads=[2, 2, 2, 2]),
    _conv((3, 4, 7, 6), (5, 4, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    _conv((3, 4, 8, 8), (5, 4, 3, 3), auto_pad="SAME_LOWER", strides=[2, 2]),
    _conv((3, 4, 7, 7), (5, 4, 2, 2), auto_pad="SAME_LOWER"),
    _conv((3, 4, 7, 6), (5, 4, 2, 2), auto_pad="SAME_UPPER"),
    _conv((3, 4, 8, 8), (5, 4, 1, 1), auto_pad="SAME_UPPER", strides=[2, 2]),
    _conv((3, 4, 7, 6), (5, 4, 3, 3), auto_pad="VALID", kernel_shape=[3, 3]),
    _conv((3, 4, 3, 3), (5, 4, 2, 2), pads=[2, 2, 2, 2]),
    _conv((3, 4, 11), (5, 4, 3), strides=[2], pads=[1, 1]),
    _conv((3, 4, 11), (4, 1, 5), group=4, pads=[2, 2]),
    _conv((3, 4, 11), (5, 4, 3), dilations=[3], pads=[6, 0]),
    _conv((3, 2, 5, 6, 4), (3, 2, 3, 3, 2), pads=[1, 1, 0, 1, 1, 1]),
    _conv((3, 2, 5, 6, 4), (3, 2, 2, 2, 2), strides=[2, 2, 2]),
    _conv((3, 2, 5, 6, 4), (2, 1, 3, 3, 3), group=2, pads=[1] * 6),
    _transposed((3, 4, 5, 4), (4, 3, 2, 2), strides=[2, 2]),
    _transposed((3, 4, 5, 4), (4, 3, 2, 2), bias=False, opset=7, strides=[2, 2]),
    _transposed((3, 4, 5, 4), (4, 3, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1], opset=22),
    _transposed(
        (3, 4, 5, 4), (4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
    ),
    _transposed((3, 4, 5, 4), (4, 3, 3, 3), pads=[1, 0, 0, 2]),
    _transposed((3, 4, 5, 4), (4, 3, 2, 3), dilations=[2, 1], strides=[1, 2]),
    _transposed(
        (3, 4, 5, 4), (4, 3, 2, 2), dilations=[3, 3], strides=[2, 3], output_padding=[1, 2]
    ),
    _transposed((3, 4, 5, 4), (4, 3, 3, 3), group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
    _transposed((3, 4, 5, 4), (4, 1, 4, 4), group=4, strides=[2, 2], pads=[1, 1, 1, 1]),
    _transposed((3, 4, 5, 4), (4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    _transposed((3, 4, 5, 4), (4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_LOWER"),
    _transposed((3, 4, 5, 4), (4, 3, 3, 3), strides=[2, 2], output_shape=[10, 8]),
    _transposed((3, 4, 5, 4), (4, 3, 1, 1)),
    _transposed((3, 4, 6), (4, 3, 5), strides=[3], pads=[1, 2]),
    Case("Col2Im", (normal(2, 12, 4), ints(4, 5), ints(2, 2)), {"strides": [2, 2]}, opset=18),
    Case(
        "Col2Im",
        (normal(2, 12, 9), ints(4, 5), ints(2, 3)),
        {"pads": [0, 1, 0, 1], "dilations": [1, 2]},
        opset=18,
    ),
    _transposed((3, 2, 3, 4, 2), (2, 3, 2, 2, 2), strides=[2, 2, 2]),
]
