"""The decoded weight itself, as an initializer: 32 bits a weight (float32), no decoding."""

import math

from onnxrd.encodings.encoding import Encoding
from onnxrd.encodings.fragment import Builder, Fragment
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Quantized, weight_dtype


def _encode(quantized: Quantized, slot: Slot) -> Fragment:
    dtype = weight_dtype(quantized)
    builder = Builder(slot)
    builder.packed(slot.output, dtype, quantized.shape, quantized.dequantize)
    return builder.build(
        "dense", quantized, load_nbytes=dtype.itemsize * math.prod(quantized.shape)
    )


DENSE = Encoding("dense", lambda quantized, slot: True, _encode)
