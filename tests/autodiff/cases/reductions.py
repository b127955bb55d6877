"""Sums, means, norms and extremes over axes."""

import numpy as np

from tests.autodiff.cases.case import Case, X, ints, normal, spaced

_P = spaced(3, 4, 5, low=0.2)
_LISTED = ("Max", "Min", "L1", "L2", "SumSquare", "LogSum", "LogSumExp", "Prod", "Mean", "Sum")
_AXIS = np.array(1)

CASES = []
for _name in _LISTED:
    _op, _x = f"Reduce{_name}", _P if _name in ("LogSum", "Prod") else X
    _old = 11 if _name == "Sum" else 17
    CASES += [
        Case(_op, (_x,), {"axes": [1, 2], "keepdims": 0}, opset=_old),
        Case(_op, (_x,), {"axes": [-1]}, opset=7),
        Case(_op, (_x,), opset=_old),
        Case(_op, (_x, ints(0, -1)), {"keepdims": 0}, opset=18),
    ]
CASES += [Case(op, (X,), {"noop_with_empty_axes": 1}, opset=18) for op in ("ReduceSum", "ReduceL2")]
CASES += [
    Case("CumSum", (X, _AXIS)),
    Case("CumSum", (X, _AXIS - 2), {"exclusive": 1}, opset=11),
    Case("CumSum", (X, _AXIS), {"reverse": 1}),
    Case("CumSum", (X, _AXIS), {"reverse": 1, "exclusive": 1}, opset=14),
    Case("ReduceProd", (np.array([[1, 0, 2], [0, 3, 0], [2, 3, 4]], np.float32),), {"axes": [1]}),
    Case("ReduceL2", (normal(2, 3), ints()), opset=18),
    Case("CumProd", (_P, _AXIS), opset=26),
    Case("CumProd", (_P, _AXIS - 2), {"exclusive": 1, "reverse": 1}, opset=26),
]
