"""Resampling: every way of asking for a size, of placing the samples, and of interpolating.

And the grids that say where to sample.
"""

import numpy as np

from tests.autodiff.cases.case import Case, floats, ints, normal, spaced

_X, _LINE = spaced(2, 3, 4, 6), spaced(2, 3, 5)
_UP, _DOWN, _ODD = floats(1, 1, 2, 2), floats(1, 1, 0.5, 0.5), floats(1, 1, 1.6, 0.7)
_NONE = np.zeros(0, np.float32)


def _resize(x, scales=None, sizes=None, roi=_NONE, opset=17, **attributes):
    inputs = (x, roi, _NONE if scales is None and opset < 13 else scales, sizes)
    while inputs[-1] is None:
        inputs = inputs[:-1]
    return Case("Resize", inputs, attributes, opset=opset, slots=(0,))


_PLACES = (
    "half_pixel",
    "asymmetric",
    "align_corners",
    "pytorch_half_pixel",
    "half_pixel_symmetric",
)

CASES = [
    *(
        Case(
            "AffineGrid",
            (normal(2, len(size), len(size) + 1), ints(2, 1, *size)),
            {"align_corners": c},
            20,
        )
        for size in ((3, 4), (2, 1, 3))
        for c in (0, 1)
    ),
    *(
        _resize(_X, scales, mode=mode, coordinate_transformation_mode=place, opset=19)
        for mode in ("nearest", "linear", "cubic")
        for place in _PLACES
        for scales in (_UP, _ODD)
    ),
    *(
        _resize(_X, _ODD, nearest_mode=n)
        for n in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ),
    _resize(_X, _UP, coordinate_transformation_mode="asymmetric", nearest_mode="floor", opset=11),
    _resize(_X, _UP, mode="linear", coordinate_transformation_mode="pytorch_half_pixel", opset=11),
    _resize(_X, _DOWN, mode="linear"),
    _resize(_X, _DOWN, mode="linear", antialias=1, opset=18),
    _resize(_X, _DOWN, mode="cubic", antialias=1, opset=18),
    _resize(_X, _ODD, mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1),
    _resize(_X, sizes=ints(2, 3, 7, 9)),
    _resize(_X, sizes=ints(2, 3, 7, 9), mode="linear", opset=13),
    _resize(_X, sizes=ints(2, 3, 8, 12), mode="linear", opset=11),
    _resize(
        _X,
        sizes=ints(1, 6),
        mode="linear",
        coordinate_transformation_mode="pytorch_half_pixel",
        axes=[2, 3],
        opset=18,
    ),
    _resize(_X, floats(2.0), axes=[3], opset=18),
    _resize(_X, sizes=ints(8, 9), axes=[2, 3], keep_aspect_ratio_policy="not_larger", opset=18),
    _resize(_LINE, floats(1, 1, 2)),
    _resize(_LINE, floats(1, 1, 1.7), mode="linear"),
    _resize(spaced(1, 2, 3, 4, 3), floats(1, 1, 2, 2, 2), mode="linear"),
    _resize(spaced(1, 2, 3, 4, 3), floats(1, 1, 2, 1, 3)),
    _resize(
        _X,
        sizes=ints(2, 3, 5, 5),
        roi=floats(0, 0, 0.1, 0.2, 1, 1, 0.8, 1.3),
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=0.7,
    ),
    Case("Resize", (_X, _UP), opset=10, slots=(0,)),
    Case("Resize", (_X, _ODD), {"mode": "linear"}, opset=10, slots=(0,)),
    Case("Upsample", (_X,), {"scales": [1.0, 1.0, 2.0, 3.0]}, opset=7),
    Case("Upsample", (_X,), {"scales": [1.0, 1.0, 1.5, 2.0], "mode": "linear"}, opset=8),
    Case("Upsample", (_X, floats(1, 1, 2, 2)), opset=9, slots=(0,)),
    Case("Upsample", (_X, floats(1, 1, 2, 2)), {"mode": "linear"}, opset=9, slots=(0,)),
]
