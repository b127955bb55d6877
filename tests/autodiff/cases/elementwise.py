"""Elementwise operators of several inputs, with broadcasting."""

import numpy as np

from tests.autodiff.cases.case import Case, X, floats, ints, scalar, spaced

_ROW, _COLUMN = spaced(5, low=0.5, high=2), spaced(4, 1, low=0.5, seed=2)
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_CHOICE = np.arange(60).reshape(3, 4, 5) % 3 == 0

CASES = [
    Case(op, (X, other), opset=opset, weights=(1,))
    for op in _ARITHMETIC
    for other, opset in ((_ROW, 7), (_COLUMN, 17), (spaced(1, 4, 5, low=0.5), 14))
]
CASES += [
    *(Case(op, (_ROW, X + 3), weights=(0,), samples_in=1) for op in _ARITHMETIC),
    *(Case(op, (X, spaced(3, 4, 5, low=0.4, seed=4))) for op in _ARITHMETIC),
    Case("Mul", (X, spaced(1, 4, 1, seed=3)), weights=(1,)),
    Case("Add", (X, scalar(0.7)), weights=(1,)),
    Case("Div", (spaced(1), X + 3), weights=(0,), samples_in=1),
    *(Case("Pow", (X, scalar(p)), slots=(0,), opset=o) for p, o in ((1, 7), (2, 12), (3, 17))),
    Case("Pow", (X + 3, floats(0.5))),
    Case("Pow", (X + 3, floats(2))),
    Case("Pow", (X + 3, _ROW)),
    Case("Pow", (X, ints(4))),
    Case("Pow", (floats(0, 1, 2), floats(1.5, 2.5, 0.5)), slots=(1,)),
    Case("PRelu", (X, spaced(4, 1, low=0.1, high=0.9)), weights=(1,)),
    Case("PRelu", (X, spaced(1, low=0.1, high=0.9)), weights=(1,), opset=7),
    Case("PRelu", (X, spaced(4, 5, low=0.1, high=0.9)), weights=(1,), opset=9),
    Case("PRelu", (spaced(5, low=-1), spaced(5, low=0.1, high=0.9))),
    Case("Where", (_CHOICE[:1], X, _ROW), weights=(2,), samples_in=1),
    Case("Where", (_CHOICE[:1, :, :1], _ROW, X), weights=(1,), samples_in=2, opset=9),
    *(Case(op, (X, _ROW, _COLUMN)) for op in ("Sum", "Mean", "Max", "Min")),
    *(Case(op, (X, X[::-1] + 0.01), opset=8) for op in ("Sum", "Mean", "Max", "Min")),
    *(Case(op, (X,)) for op in ("Sum", "Mean", "Max", "Min")),
    Case("Clip", (X,), {"min": -0.5, "max": 1.2}, opset=7),
    Case("Clip", (X,), {"min": -0.5}, opset=10),
    Case("Clip", (X, scalar(-0.5), scalar(1.2)), opset=11),
    Case("Clip", (X, scalar(-0.5), scalar(1.2))),
    Case("Clip", (X, None, scalar(1.2))),
    Case("Clip", (X, scalar(-0.5))),
    Case("Clip", (X,)),
    Case("Clip", (X, scalar(0.5), scalar(0.2))),
    Case("Mod", (X, _ROW), {"fmod": 1}),
    Case("Mod", (X, scalar(0.7)), {"fmod": 1}, opset=10),
    *(Case(op, (X, _ROW), weights=(1,)) for op in ("Sum", "Max", "Min")),
    *(Case(op, (_ROW, X), weights=(0,), samples_in=1) for op in ("Sum", "Max", "Min")),
    Case("Pow", (X + 3, _ROW), weights=(1,)),
    Case("Pow", (_ROW, X), weights=(0,), samples_in=1),
]
