"""The decoded weight itself, as an initializer: 32 bits a weight (float32), no decoding."""

import math

from onnxrd.encodings.encoding import Encoding
from onnxrd.encodings.fragment import Builder, Fragment
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Codebook, Quantized


def _encode(quantized: Quantized, slot: Slot) -> Fragment:
    source = quantized.levels if isinstance(quantized, Codebook) else quantized.values
    builder = Builder(slot)
    builder.packed(slot.output, source.dtype, quantized.shape, quantized.dequantize)
    return builder.build(
        "dense", quantized, load_nbytes=source.itemsize * math.prod(quantized.shape)
    )


DENSE = Encoding("dense", lambda quantized, slot: True, _encode)
