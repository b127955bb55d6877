"""Codes as UINT4 (opset 21) or UINT2 (opset 25) tensors: 4 or 2 bits a weight.

Same size as a byte LUT at 16 or 4 levels, but with a simpler decoder that takes less memory at
load. onnxruntime casts these types but does not reshape them: they are stored in final shape.
"""

from typing import Any

import ml_dtypes
import numpy as np

from onnxrd.encodings.encoding import Encoding
from onnxrd.encodings.fragment import Builder, Fragment
from onnxrd.encodings.lookup import lookup, lookup_load_nbytes
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Codebook, Quantized


def native_dtype(levels: int, slot: Slot) -> np.dtype[Any] | None:
    """The narrowest type for that many levels, None if the model's opset has none."""
    dtype: np.dtype[Any] | None = None
    if levels <= 4 and slot.opset >= 25 and slot.ir_version >= 13:
        dtype = np.dtype(ml_dtypes.uint2)
    elif levels <= 16 and slot.opset >= 21 and slot.ir_version >= 10:
        dtype = np.dtype(ml_dtypes.uint4)
    return dtype


def _accepts(quantized: Quantized, slot: Slot) -> bool:
    if not isinstance(quantized, Codebook) or 0 in quantized.shape:
        return False
    return native_dtype(len(quantized.levels), slot) is not None


def _encode(quantized: Quantized, slot: Slot) -> Fragment:
    assert isinstance(quantized, Codebook)
    dtype = native_dtype(len(quantized.levels), slot)
    assert dtype is not None
    builder = Builder(slot)
    codes = builder.packed(slot.stem, dtype, quantized.shape, lambda: quantized.codes.astype(dtype))
    levels = builder.tensor(f"{slot.stem}l", quantized.levels)
    builder.call(lookup(slot.opset), (codes, levels), slot.output)
    return builder.build("native_int4", quantized, load_nbytes=lookup_load_nbytes(quantized))


NATIVE_INT4 = Encoding("native_int4", _accepts, _encode)
