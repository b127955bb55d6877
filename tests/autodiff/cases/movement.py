"""Operators that only move entries."""

import numpy as np

from tests.autodiff.cases.case import Case, X, floats, ints, normal, scalar, spaced

_PLANE, _ONE = spaced(3, 8, 2, 4), spaced(3, 1, 4)
_SPLIT = {"outputs": 2, "differentiated": (0, 1)}

CASES = [
    Case("Reshape", (X, ints(5, -1))),
    Case("Reshape", (X, ints(0, 20)), opset=7),
    Case("Flatten", (X,), {"axis": 2}),
    Case("Flatten", (X,), {"axis": -1}, opset=13),
    Case("Squeeze", (_ONE,), {"axes": [1]}, opset=11),
    Case("Squeeze", (_ONE,), opset=9),
    Case("Squeeze", (_ONE, ints(1)), opset=13),
    Case("Unsqueeze", (X,), {"axes": [0, 2]}, opset=11),
    Case("Unsqueeze", (X, ints(0, -1)), opset=13),
    Case("Transpose", (X,), {"perm": [2, 0, 1]}),
    Case("Transpose", (X,)),
    Case("Concat", (X, spaced(3, 2, 5), spaced(3, 1, 5)), {"axis": 1}),
    Case("Concat", (X, X + 1), {"axis": -1}, opset=7),
    Case("Split", (X,), {"axis": 1, "split": [1, 3]}, opset=11, **_SPLIT),
    Case("Split", (X,), {"axis": 1}, opset=7, **_SPLIT),
    Case("Split", (X, ints(1, 3)), {"axis": -2}, opset=13, **_SPLIT),
    Case("Split", (X, ints(1, 3)), {"axis": 1}, opset=13, outputs=2),
    Case("Split", (X,), {"axis": 2, "num_outputs": 2}, opset=18, **_SPLIT),
    Case("Expand", (_ONE, ints(2, 1, 4, 1)), opset=13),
    Case("Expand", (spaced(4, 1), ints(3, 1, 5)), opset=8),
    Case("Tile", (X, ints(2, 1, 3)), opset=7),
    Case("Slice", (X,), {"starts": [1, -3], "ends": [9, -1], "axes": [0, 2]}, opset=9),
    Case("Slice", (X,), {"starts": [0, 1], "ends": [2, 3]}, opset=7),
    Case("Slice", (X, ints(1, 0), ints(4, 99), ints(1, 2), ints(1, 2)), opset=10),
    Case("Slice", (X, ints(-1), ints(-99), ints(2), ints(-2))),
    Case("Slice", (X, ints(3), ints(-99), ints(-1), ints(-1))),
    Case("Slice", (X, ints(0, 1), ints(2, 3))),
    Case("Pad", (X,), {"pads": [0, 1, 2, 0, 0, 1], "value": 0.5}, opset=7),
    Case("Pad", (X, ints(0, 1, -1, 0, 2, 1)), opset=11),
    Case("Pad", (X, ints(1, 2), scalar(0.3), ints(-2)), opset=18),
    *(Case("Pad", (X, ints(0, 3, 2, 1, 1, 2)), {"mode": m}, opset=13) for m in ("edge", "reflect")),
    Case("Pad", (X,), {"mode": "reflect", "pads": [0, 0, 4, 0, 0, 4]}, opset=7),
    Case("Pad", (X, ints(1, 2, 2, 1), None, ints(0, -1)), {"mode": "edge"}, opset=18),
    Case("Pad", (X, ints(0, 3, 2, 1, 1, 2)), {"mode": "wrap"}, opset=19),
    *(Case("DepthToSpace", (_PLANE,), {"blocksize": 2}, opset=o) for o in (7, 13)),
    Case("DepthToSpace", (_PLANE,), {"blocksize": 2, "mode": "CRD"}, opset=11),
    Case("SpaceToDepth", (_PLANE,), {"blocksize": 2}),
    Case("SpaceToDepth", (_PLANE,), {"blocksize": 2, "mode": "CRD"}, opset=28),
    Case("Trilu", (spaced(3, 4, 5),)),
    Case("Trilu", (spaced(3, 4, 5), ints(1).reshape(())), {"upper": 0}),
    Case("ReverseSequence", (spaced(4, 3, 2), ints(4, 2, 1))),
    Case("ReverseSequence", (X, ints(4, 2, 3)), {"batch_axis": 0, "time_axis": 1}),
]

_ROWS = np.array([[0, 2], [-1, 2]], np.int64)
INDEXING = [
    Case("Gather", (X, ints(1, -1, 0)), {"axis": 1}),
    Case("Gather", (X, ints(1, 1, 3)), {"axis": 1}, opset=7),
    Case("Gather", (X, ints(2).reshape(())), {"axis": 2}),
    Case("Gather", (X, ints(-1).reshape(())), {"axis": 1}, opset=11),
    Case("Gather", (X, _ROWS), {"axis": -1}),
    Case(
        "Gather",
        (normal(7, 5), np.array([[0, 2, 2], [5, 5, 5], [6, -1, 0]])),
        weights=(0,),
        samples_in=1,
    ),
    Case("Gather", (normal(7, 2, 3), ints(4, 4, 1)), weights=(0,), samples_in=1),
    Case("Gather", (normal(7, 2, 3), ints(4, 4, 1).astype(np.int32)), weights=(0,), samples_in=1),
    Case("GatherElements", (X, np.arange(60, dtype=np.int32).reshape(3, 4, 5) % 3)),
    Case("GatherElements", (X, np.arange(30).reshape(3, 2, 5) % 4 - 1), {"axis": 1}),
    Case("GatherElements", (X, np.arange(60).reshape(3, 4, 5) % 3), opset=11),
    Case("GatherND", (X, _ROWS)),
    Case("GatherND", (X, ints(1, 0, 1).reshape(3, 1)), {"batch_dims": 1}, opset=12),
    Case("Compress", (X, np.array([True, False, True])), {"axis": 1}),
    Case("Compress", (X, np.arange(60) % 7 == 0), opset=9),
    Case("TopK", (X, ints(2)), {"axis": 1}, outputs=2, opset=11),
    Case("TopK", (X,), {"k": 3}, outputs=2, opset=9),
    Case("TopK", (X, ints(2)), {"largest": 0, "sorted": 0}, outputs=2, opset=24),
    Case("ScatterElements", (X, np.array([[[1], [3]]]), spaced(1, 2, 1)), {"axis": 1}),
    Case(
        "ScatterElements",
        (X, np.array([[[1], [1]]]), spaced(1, 2, 1)),
        {"reduction": "add"},
        opset=18,
    ),
    Case("Scatter", (X, np.array([[[1], [3]]]), spaced(1, 2, 1)), {"axis": 1}, opset=9),
    Case("ScatterND", (X, _ROWS, spaced(2, 5))),
    Case("ScatterND", (X, np.array([[1], [1]]), spaced(2, 4, 5)), {"reduction": "add"}, opset=18),
    *(
        Case("ScatterND", (X, _ROWS, spaced(2, 5, low=0.3)), {"reduction": how}, opset=18)
        for how in ("mul", "max", "min")
    ),
    Case(
        "ScatterElements",
        (X, np.array([[[1], [1]]]), spaced(1, 2, 1)),
        {"reduction": "mul", "axis": 1},
        opset=18,
    ),
    Case("OneHot", (ints(0, 2, 1, 5), ints(4).reshape(()), floats(-0.3, 1.2))),
    Case("OneHot", (_ROWS, ints(3), floats(0, 1)), {"axis": 1}, opset=11),
    Case(
        "MaxUnpool",
        (spaced(2, 1, 2, 2), ints(1, 6, 8, 15, 18, 20, 25, 31).reshape(2, 1, 2, 2)),
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
]
CASES += INDEXING
