"""A weight whose entries are all equal: ConstantOfShape, no bits at all. Opset 9."""

import math

import numpy as np
import onnx
import onnx.numpy_helper
from numpy.typing import NDArray

from onnxrd.encodings.encoding import Encoding
from onnxrd.encodings.fragment import Array, Builder, Fragment
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Codebook, Quantized, Sparse, weight_dtype


def nonzero(values: Array) -> NDArray[np.bool_]:
    """Where an entry is anything but +0.0: -0.0 has to be stored to come back as it was."""
    return np.asarray((values != 0) | np.signbit(values), np.bool_)


def _accepts(quantized: Quantized, slot: Slot) -> bool:
    if slot.opset < 9 or 0 in quantized.shape:
        return False
    if isinstance(quantized, Codebook):
        return int(np.count_nonzero(quantized.counts)) == 1
    return isinstance(quantized, Sparse) and not nonzero(quantized.values).any()


def _encode(quantized: Quantized, slot: Slot) -> Fragment:
    if isinstance(quantized, Codebook):
        value = quantized.levels[quantized.codes.ravel()[:1]]
    else:
        value = np.zeros(1, weight_dtype(quantized))
    builder = Builder(slot)
    builder.node(
        onnx.helper.make_node(
            "ConstantOfShape",
            [builder.shape(quantized.shape)],
            [slot.output],
            value=onnx.numpy_helper.from_array(value),
        )
    )
    return builder.build("fill", quantized, load_nbytes=value.itemsize * math.prod(quantized.shape))


FILL = Encoding("fill", _accepts, _encode)
