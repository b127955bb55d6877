"""One byte a weight for up to 256 levels, else two: Gather(levels, Cast(codes)). Opset 7."""

from onnxrd.encodings.encoding import Encoding
from onnxrd.encodings.fragment import Builder, Fragment
from onnxrd.encodings.lookup import lookup, lookup_load_nbytes
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Codebook, Quantized


def _accepts(quantized: Quantized, slot: Slot) -> bool:
    return isinstance(quantized, Codebook) and slot.opset >= 7 and 0 not in quantized.shape


def _encode(quantized: Quantized, slot: Slot) -> Fragment:
    assert isinstance(quantized, Codebook)
    builder = Builder(slot)
    dtype = quantized.codes.dtype
    codes = builder.packed(slot.stem, dtype, quantized.shape, lambda: quantized.codes)
    levels = builder.tensor(f"{slot.stem}l", quantized.levels)
    builder.call(lookup(slot.opset), (codes, levels), slot.output)
    return builder.build("byte_codes", quantized, load_nbytes=lookup_load_nbytes(quantized))


BYTE_CODES = Encoding("byte_codes", _accepts, _encode)
