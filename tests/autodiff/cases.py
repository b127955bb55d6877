"""The table of cases: at least one for every rule, with the attributes that networks use."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One operator with inputs.

    Attributes:
        op: operator.
        inputs: arrays, or None for an absent one. Floating-point ones are differentiated.
        attributes: of the node.
        opset: of the model.
        slots: inputs to differentiate; by default all floating-point ones.
        outputs: how many the node has; the first is differentiated unless `all_outputs`.
        weights: slots that a batched rule is to be tested for, besides the samples in slot 0.
        domain: of the operator.
    """

    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    slots: tuple[int, ...] | None = None
    outputs: int = 1
    all_outputs: bool = False
    weights: tuple[int, ...] = ()
    samples_in: int = 0
    domain: str = ""

    def __str__(self):
        shapes = "x".join("-" if i is None else str(list(i.shape)) for i in self.inputs)
        return f"{self.op}-{self.opset}-{shapes}-{self.attributes}"


def spaced(*shape, low=-2.0, high=2.0, seed=0):
    """Distinct values at equal distances, shuffled, none of them at a kink (zero, ±1, ±3)."""
    n = int(np.prod(shape))
    values = np.linspace(low, high, n + 2)[1:-1] + 0.0137
    return np.random.default_rng(seed).permutation(values).reshape(shape).astype(np.float32)


def ints(*numbers):
    return np.array(numbers, np.int64)


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = spaced(3, 4, 5)
_UNARY = [
    "Identity",
    "Neg",
    "Relu",
    "Abs",
    "LeakyRelu",
    "Sigmoid",
    "Tanh",
    "Exp",
    "Sin",
    "Cos",
    "Softplus",
    "Softsign",
    "Elu",
    "Selu",
]
_UNARY += ["HardSigmoid", "Erf"]

UNARY = [Case(op, (X,)) for op in _UNARY]
UNARY += [
    Case("Celu", (X,), {"alpha": 0.7}),
    Case("Elu", (X,), {"alpha": 0.6}),
    Case("LeakyRelu", (X,), {"alpha": 0.3}, opset=7),
    Case("Selu", (X,), {"alpha": 1.2, "gamma": 0.8}),
    Case("HardSigmoid", (X,), {"alpha": 0.4, "beta": 0.3}),
    Case("ThresholdedRelu", (X,), {"alpha": 0.5}),
    Case("HardSwish", (spaced(3, 4, 5, low=-5, high=5),)),
    Case("Mish", (X,), opset=18),
    Case("Gelu", (X,), opset=20),
    Case("Gelu", (X,), {"approximate": "tanh"}, opset=20),
    Case("Gelu", (X,), domain="com.microsoft"),
    Case("Swish", (X,), {"alpha": 1.3}, opset=24),
    *(Case(op, (spaced(3, 4, low=0.3, high=2),)) for op in ("Log", "Sqrt", "Reciprocal")),
    Case("Cast", (X,), {"to": 1}),
    Case("Dropout", (X,), opset=7),
    Case("Dropout", (X, np.array(0.5, np.float32)), opset=13, slots=(0,)),
    Case("Clip", (X,), {"min": -0.5, "max": 1.2}, opset=7),
    Case("Clip", (X, np.array(-0.5, np.float32), np.array(1.2, np.float32)), slots=(0,)),
    Case("Clip", (X, None, np.array(1.2, np.float32)), slots=(0,)),
    Case("Clip", (X,), slots=(0,)),
]

_WIDE, _ROW, _COLUMN = spaced(3, 4, 5), spaced(5, low=0.5, high=2), spaced(4, 1, low=0.5, seed=2)
BINARY = [
    Case(op, (_WIDE, other), opset=opset, weights=(1,))
    for op in ("Add", "Sub", "Mul", "Div")
    for other, opset in ((_ROW, 7), (_COLUMN, 17))
]
BINARY += [
    *(
        Case(op, (_ROW, _WIDE + 3), weights=(0,), samples_in=1)
        for op in ("Add", "Sub", "Mul", "Div")
    ),
    Case("Mul", (_WIDE, spaced(1, 4, 1, seed=3)), weights=(1,)),
    Case("Add", (_WIDE, np.float32(0.7).reshape(())), weights=(1,)),
    Case("Div", (spaced(1), _WIDE + 3), weights=(0,), samples_in=1),
    Case("Pow", (_WIDE + 3, np.array([2.0], np.float32))),
    Case("Pow", (_WIDE + 3, spaced(5, low=0.5, high=3))),
    Case("PRelu", (_WIDE, spaced(4, 1, low=0.1, high=0.9)), weights=(1,)),
    Case("PRelu", (_WIDE, spaced(1, low=0.1, high=0.9)), weights=(1,), opset=7),
    Case("PRelu", (spaced(5, low=-1), spaced(5, low=0.1, high=0.9)), slots=(0, 1)),
    Case("Where", (np.arange(60).reshape(3, 4, 5) % 3 == 0, _WIDE, _ROW)),
    *(Case(op, (_WIDE, _ROW, _COLUMN)) for op in ("Sum", "Mean", "Max", "Min")),
    Case("Max", (_WIDE,)),
]

LINEAR = [
    Case("Gemm", (normal(3, 4), normal(4, 5), normal(5)), weights=(1, 2)),
    Case("Gemm", (normal(3, 4), normal(5, 4), normal(1, 5)), {"transB": 1}, weights=(1, 2)),
    Case("Gemm", (normal(4, 3), normal(5, 4)), {"transA": 1, "transB": 1}),
    Case(
        "Gemm", (normal(4, 3), normal(4, 5), normal(3, 1)), {"transA": 1, "alpha": 0.5, "beta": 2.0}
    ),
    Case(
        "Gemm", (normal(3, 4), normal(4, 5), normal(5)), {"alpha": 0.5, "beta": 2.0}, weights=(1, 2)
    ),
    Case("Gemm", (normal(3, 4), normal(5, 4)), {"alpha": 0.5, "transB": 1}, opset=11, weights=(1,)),
    Case("MatMul", (normal(3, 4), normal(4, 5)), weights=(1,)),
    Case("MatMul", (normal(3, 6, 4), normal(4, 5)), weights=(1,)),
    Case("MatMul", (normal(3, 2, 6, 4), normal(4, 5)), weights=(1,)),
    Case("MatMul", (normal(5, 4), normal(3, 4, 6)), weights=(0,), samples_in=1),
    Case("MatMul", (normal(3, 2, 6, 4), normal(3, 2, 4, 5))),
    Case("MatMul", (normal(2, 6, 4), normal(3, 1, 4, 5))),
    Case("MatMul", (normal(4), normal(4, 5))),
    Case("MatMul", (normal(3, 4), normal(4))),
    Case("MatMul", (normal(4), normal(4))),
]


def _conv(x, w, bias=True, opset=17, **attributes):
    b = normal(w[0], seed=5) if bias else None
    inputs = (normal(*x), normal(*w, seed=2), b) if bias else (normal(*x), normal(*w, seed=2))
    return Case("Conv", inputs, attributes, opset=opset, weights=(1, 2) if bias else (1,))


CONVOLUTION = [
    _conv((3, 4, 7, 6), (5, 4, 3, 3), pads=[1, 1, 1, 1]),
    _conv((3, 4, 7, 6), (5, 4, 1, 1), bias=False, opset=7),
    _conv((3, 4, 7, 6), (5, 4, 1, 1), strides=[2, 2]),
    _conv((3, 4, 8, 7), (5, 4, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
    _conv((3, 4, 9, 9), (5, 4, 3, 2), strides=[3, 2], pads=[0, 1, 2, 0]),
    _conv((3, 4, 9, 9), (5, 4, 3, 3), dilations=[2, 2], pads=[2, 1, 2, 3]),
    _conv((3, 4, 9, 9), (5, 4, 3, 3), dilations=[2, 1], strides=[2, 2], pads=[1, 1, 1, 1]),
    _conv((3, 6, 7, 7), (4, 3, 3, 3), group=2, pads=[1, 1, 1, 1]),
    _conv((3, 6, 7, 7), (4, 3, 3, 3), group=2, strides=[2, 2]),
    _conv((3, 6, 7, 7), (6, 1, 3, 3), group=6, pads=[1, 1, 1, 1]),
    _conv((3, 6, 7, 7), (12, 1, 5, 5), group=6, strides=[2, 2], pads=[2, 2, 2, 2]),
    _conv((3, 4, 7, 6), (5, 4, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    _conv((3, 4, 8, 8), (5, 4, 3, 3), auto_pad="SAME_LOWER", strides=[2, 2]),
    _conv((3, 4, 7, 6), (5, 4, 2, 2), auto_pad="SAME_UPPER"),
    _conv((3, 4, 7, 6), (5, 4, 3, 3), auto_pad="VALID"),
    _conv((3, 4, 3, 3), (5, 4, 2, 2), pads=[2, 2, 2, 2]),
    _conv((3, 4, 11), (5, 4, 3), strides=[2], pads=[1, 1]),
    _conv((3, 4, 11), (4, 1, 5), group=4, pads=[2, 2]),
    _conv((3, 2, 5, 6, 4), (3, 2, 3, 3, 2), pads=[1, 1, 0, 1, 1, 1]),
    _conv((3, 2, 5, 6, 4), (3, 2, 2, 2, 2), strides=[2, 2, 2]),
]

_IMAGE, _ODD = spaced(2, 3, 6, 8), spaced(2, 3, 7, 7)
POOLING = [
    Case("GlobalAveragePool", (_IMAGE,)),
    Case("GlobalAveragePool", (spaced(2, 3, 7),)),
    Case("GlobalMaxPool", (_IMAGE,)),
    Case("AveragePool", (_IMAGE,), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("AveragePool", (_ODD,), {"kernel_shape": [2, 2], "strides": [2, 2]}, opset=7),
    Case("AveragePool", (_ODD,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case(
        "AveragePool",
        (_ODD,),
        {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1},
    ),
    Case("AveragePool", (_ODD,), {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}),
    Case("AveragePool", (spaced(2, 3, 9),), {"kernel_shape": [3], "strides": [2]}),
    Case("MaxPool", (_IMAGE,), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("MaxPool", (_ODD,), {"kernel_shape": [2, 2], "strides": [2, 2]}, opset=8),
    Case("MaxPool", (_ODD,), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, opset=11),
    Case("MaxPool", (_ODD,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("MaxPool", (_ODD,), {"kernel_shape": [3, 3], "dilations": [2, 2]}),
    Case("MaxPool", (_ODD,), {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("MaxPool", (spaced(2, 3, 9),), {"kernel_shape": [3], "strides": [3]}),
    Case("MaxPool", (spaced(2, 2, 4, 4, 4),), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
]

MOVEMENT = [
    Case("Reshape", (X, ints(5, -1))),
    Case("Reshape", (X, ints(0, 20)), opset=7),
    Case("Flatten", (X,), {"axis": 2}),
    Case("Squeeze", (spaced(3, 1, 4),), {"axes": [1]}, opset=11),
    Case("Squeeze", (spaced(3, 1, 4), ints(1)), opset=13),
    Case("Unsqueeze", (X,), {"axes": [0, 2]}, opset=11),
    Case("Unsqueeze", (X, ints(0, -1)), opset=13),
    Case("Transpose", (X,), {"perm": [2, 0, 1]}),
    Case("Transpose", (X,)),
    Case("Concat", (X, spaced(3, 2, 5), spaced(3, 1, 5)), {"axis": 1}),
    Case("Concat", (X, X + 1), {"axis": -1}, opset=7),
    Case("Split", (X,), {"axis": 1, "split": [1, 3]}, opset=11, outputs=2, all_outputs=True),
    Case("Split", (X, ints(1, 3)), {"axis": 1}, opset=13, outputs=2, all_outputs=True),
    Case("Split", (X, ints(1, 3)), {"axis": 1}, opset=13, outputs=2),
    Case("Expand", (spaced(3, 1, 5), ints(2, 1, 4, 1))),
    Case("Slice", (X,), {"starts": [1, -3], "ends": [9, -1], "axes": [0, 2]}, opset=9),
    Case("Slice", (X, ints(1, 0), ints(4, 99), ints(1, 2), ints(1, 2))),
    Case("Slice", (X, ints(-1), ints(-99), ints(2), ints(-2))),
    Case("Slice", (X, ints(3), ints(-99), ints(2), ints(-1))),
    Case("Slice", (X, ints(0, 1), ints(2, 3))),
    Case("Pad", (X,), {"pads": [0, 1, 2, 0, 0, 1], "value": 0.5}, opset=9),
    Case("Pad", (X, ints(0, 1, -1, 0, 2, 1)), slots=(0,)),
    Case("Pad", (X, ints(1, 2), np.array(0.0, np.float32), ints(1)), opset=18, slots=(0,)),
]

_BATCH = (normal(3, 4, 5, 2), *(spaced(4, low=0.5, high=1.5, seed=k) for k in range(4)))
NORMALISATION = [
    Case("Softmax", (normal(3, 4, 5),), {"axis": 1}),
    Case("Softmax", (normal(3, 4, 5),), {"axis": 1}, opset=11),
    Case("Softmax", (normal(3, 5),), opset=7),
    Case("LogSoftmax", (normal(3, 4, 5),)),
    Case("LogSoftmax", (normal(3, 4, 5),), {"axis": 1}, opset=11),
    Case("BatchNormalization", _BATCH, {"epsilon": 0.1}, slots=(0, 1, 2), weights=(1, 2)),
    Case(
        "BatchNormalization", (normal(3, 4), *_BATCH[1:]), opset=9, slots=(0, 1, 2), weights=(1, 2)
    ),
    *(
        Case(op, inputs, attributes, opset=opset)
        for op, old in (("ReduceSum", 11), ("ReduceMean", 17))
        for inputs, attributes, opset in (
            ((X,), {"axes": [1, 2], "keepdims": 0}, old),
            ((X,), {"axes": [-1]}, old),
            ((X,), {}, old),
            ((X, ints(0, 2)), {"keepdims": 0}, 18),
            ((X,), {"noop_with_empty_axes": 1}, 18),
        )
    ),
]

CASES = [*UNARY, *BINARY, *LINEAR, *CONVOLUTION, *POOLING, *MOVEMENT, *NORMALISATION]
