"""Pooling over windows and over everything."""

from tests.autodiff.cases.case import Case, spaced

_IMAGE, _ODD, _LINE, _CUBE = (
    spaced(2, 3, 6, 8),
    spaced(2, 3, 7, 7),
    spaced(2, 3, 9),
    spaced(2, 2, 4, 5, 4),
)
_SAME, _LOWER = {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}
_2, _3 = {"kernel_shape": [2, 2], "strides": [2, 2]}, {"kernel_shape": [3, 3], "strides": [2, 2]}
_WINDOWS = [
    (_IMAGE, _2, 7),
    (_ODD, _2, 8),
    (_ODD, _2 | {"ceil_mode": 1}, 11),
    (_ODD, {"kernel_shape": [3, 3]}, 7),
    (_IMAGE, _3 | {"ceil_mode": 1}, 19),
    (_IMAGE, _3 | {"ceil_mode": 1, "pads": [1, 1, 1, 1]}, 22),
    (_ODD, _3 | {"pads": [1, 1, 1, 1]}, 17),
    (_ODD, _3 | {"pads": [0, 1, 2, 1]}, 22),
    (_ODD, {"kernel_shape": [3, 2], "strides": [1, 3], "pads": [1, 0, 1, 1]}, 11),
    (_ODD, {"kernel_shape": [1, 1], "strides": [2, 2]}, 17),
    (_ODD, {"kernel_shape": [3, 3], **_SAME}, 17),
    (_IMAGE, _3 | _SAME, 17),
    (_IMAGE, _3 | _LOWER, 17),
    (_ODD, _3 | {"auto_pad": "VALID"}, 17),
    (_ODD, {"kernel_shape": [3, 3], "dilations": [2, 2]}, 19),
    (_ODD, {"kernel_shape": [2, 2], "dilations": [3, 2], "pads": [1, 1, 1, 1]}, 22),
    (_LINE, {"kernel_shape": [3], "strides": [3]}, 17),
    (_LINE, {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}, 17),
    (_CUBE, {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}, 17),
    (_CUBE, {"kernel_shape": [2, 3, 2], "pads": [1, 1, 0, 0, 1, 1]}, 17),
]
_COUNTED = [
    (_ODD, {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [1, 0, 1, 1]}, 7),
    (_IMAGE, _3 | {"ceil_mode": 1, "pads": [1, 1, 1, 1]}, 19),
    (_ODD, _2 | {"ceil_mode": 1}, 22),
    (_IMAGE, {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [2, 2, 2, 2]}, 19),
]

CASES = [
    Case(op, (x,), opset=opset)
    for op in ("GlobalAveragePool", "GlobalMaxPool")
    for x, opset in ((_IMAGE, 7), (_LINE, 17), (_CUBE, 22))
]
CASES += [Case("GlobalLpPool", (_IMAGE,), {"p": p}) for p in (1, 2, 3)]
CASES += [Case("MaxPool", (x,), a, opset) for x, a, opset in _WINDOWS]
CASES += [
    Case("AveragePool", (x,), a, max(opset, 19) if "dilations" in a else opset)
    for x, a, opset in _WINDOWS
]
CASES += [Case("AveragePool", (x,), a | {"count_include_pad": 1}, o) for x, a, o in _COUNTED]
CASES += [
    Case("LpPool", (_ODD,), _3 | {"pads": [1, 1, 1, 1]}),
    Case("LpPool", (_IMAGE,), _2 | {"p": 1}),
    Case("LpPool", (_ODD,), _3 | {"p": 3, **_SAME}, opset=22),
]
