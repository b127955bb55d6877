"""Softmax and the normalisations."""

from tests.autodiff.cases.case import Case, normal, spaced


def _scales(*shape, count=2):
    return tuple(spaced(*shape, low=0.5, high=1.5, seed=k) for k in range(count))


_X, _IMAGE = normal(3, 4, 5), normal(3, 4, 5, 2)
_BATCH, _ROW = _scales(4, count=4), _scales(5)
_SAMPLES = {"weights": (1, 2)}

CASES = [
    *(
        Case(op, (_X,), {"axis": 1} if axis else {}, opset=opset)
        for op in ("Softmax", "LogSoftmax")
        for axis, opset in ((1, 17), (1, 11), (0, 13), (0, 7))
    ),
    Case("Softmax", (normal(3, 5),), opset=7),
    Case("BatchNormalization", (_IMAGE, *_BATCH), {"epsilon": 0.1}, **_SAMPLES),
    Case("BatchNormalization", (normal(3, 4), *_BATCH), opset=9, **_SAMPLES),
    Case("BatchNormalization", (_X, *_BATCH), opset=7, **_SAMPLES),
    Case("BatchNormalization", (_X, *_BATCH), {"training_mode": 0}, opset=15, **_SAMPLES),
    Case("LayerNormalization", (_X, *_ROW), **_SAMPLES),
    Case("LayerNormalization", (_X, _ROW[0]), {"epsilon": 0.1}, weights=(1,)),
    Case("LayerNormalization", (_X, *_scales(4, 5)), {"axis": 1}, **_SAMPLES),
    Case("LayerNormalization", (normal(3, 5), *_ROW), {"axis": -1}, **_SAMPLES),
    Case("LayerNormalization", (_X, *_scales(1)), **_SAMPLES),
    Case("InstanceNormalization", (_X, *_scales(4)), **_SAMPLES),
    Case("InstanceNormalization", (_IMAGE, *_scales(4)), {"epsilon": 0.1}, opset=7, **_SAMPLES),
    Case(
        "GroupNormalization", (_IMAGE, *_scales(2)), {"num_groups": 2}, 18, **_SAMPLES, single=True
    ),
    Case(
        "GroupNormalization", (_IMAGE, *_scales(4)), {"num_groups": 2}, 21, **_SAMPLES, single=True
    ),
    Case(
        "GroupNormalization",
        (_X, *_scales(4)),
        {"num_groups": 1, "epsilon": 0.1},
        opset=22,
        single=True,
        **_SAMPLES,
    ),
    Case("RMSNormalization", (_X, _ROW[0]), opset=23, weights=(1,)),
    Case(
        "RMSNormalization",
        (_X, *_scales(4, 5, count=1)),
        {"axis": 1, "epsilon": 0.1},
        24,
        weights=(1,),
    ),
    Case("SimplifiedLayerNormalization", (_X, _ROW[0]), {"epsilon": 0.1}, weights=(1,)),
    Case("MeanVarianceNormalization", (_IMAGE,)),
    Case("MeanVarianceNormalization", (_X,), {"axes": [1, 2]}, opset=9),
    Case("LpNormalization", (_X,)),
    Case("LpNormalization", (_X,), {"axis": 1, "p": 1}, opset=22),
    Case("LpNormalization", (_IMAGE,), {"axis": 1, "p": 2}),
    Case("LRN", (_IMAGE,), {"size": 3}),
    Case("LRN", (normal(3, 6, 2, 2),), {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 1.3}, 7),
    Case("LRN", (normal(3, 6, 2, 2),), {"size": 5, "alpha": 0.5}),
]
