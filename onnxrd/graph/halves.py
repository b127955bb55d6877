"""Vectors for which half precision is enough: biases, and scales of normalisations."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.graph.uses import ELEMENTWISE, NORMALISATIONS, Use, role_of
from onnxrd.graph.weights import STAYS, Weight

Array = NDArray[Any]

LARGEST = 2.0**15
"""Entries may be this large, half of what half precision can hold: they may yet change."""

PRECISION = 2.0**-11
"""Relative error of half precision."""

_ROLES = ("bias", "normalisation")
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", *NORMALISATIONS})


def halves(weights: Iterable[Weight]) -> dict[str, Array]:
    """The float32 vectors among constants that may be in half precision, rounded to it, by name.

    Those that are biases and scales of layers, as far as the graph shows, and lose next to nothing:
    an error is no more than 2^-11 of the entry, or for small ones of the vector's root mean square.
    What else is added or multiplied (a mask, coordinates, …) stays.
    """
    found = {}
    for weight in weights:
        if _is_parameter(weight):
            assert weight.value.const_value is not None
            array = np.asarray(weight.value.const_value.numpy())
            if _fits(array, exactly=any(map(_is_variance, weight.uses))):
                found[weight.name] = rounded(array)
    return found


def rounded(array: Array) -> Array:
    """The nearest numbers of half precision, as float32."""
    return array.clip(-2 * LARGEST + 32, 2 * LARGEST - 32).astype(np.float16).astype(np.float32)


def _is_parameter(weight: Weight) -> bool:
    return (
        weight.skip in [f"{STAYS}: {role}" for role in _ROLES]
        and weight.dtype == np.float32
        and max(weight.shape, default=1) == weight.size
        and all(map(_belongs_to_layer, weight.uses))
    )


def _belongs_to_layer(use: Use) -> bool:
    """Whether a constant with the role of a parameter has it in truth."""
    if any(node.op_type == "Cast" for node in use.moved):
        return False
    if use.node.op_type not in ELEMENTWISE:
        return role_of(use, ()) in _ROLES
    other = use.node.inputs[1 - use.slot]
    layer = None if other is None else other.producer()
    return use.node.op_type in ("Add", "Mul") and layer is not None and layer.op_type in _LAYERS


def _is_variance(use: Use) -> bool:
    """Whether a small entry may make a difference, as it is divided by."""
    return (use.node.op_type, use.slot) == ("BatchNormalization", 4)


def _fits(array: Array, *, exactly: bool) -> bool:
    if not (np.abs(array) <= LARGEST).all():
        return False
    exact = array.astype(np.float64)
    scale = 0.0 if exactly else float(np.sqrt(np.mean(exact**2)))
    return bool((np.abs(rounded(array) - exact) <= PRECISION * np.fmax(np.abs(exact), scale)).all())
