"""Several codes in a byte, decoded by a table of up to 256 runs of levels. Opset 7.

| levels        | 2 | 3   | 4 | 5, 6 | 7…16 |
|---------------|---|-----|---|------|------|
| codes a byte  | 8 | 5   | 4 | 3    | 2    |
| bits a weight | 1 | 1.6 | 2 | 2.67 | 4    |
"""

from onnxrd.encodings import lut
from onnxrd.encodings.encoding import Encoding
from onnxrd.encodings.fragment import Fragment
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Codebook, Quantized


def _accepts(quantized: Quantized, slot: Slot) -> bool:
    if not isinstance(quantized, Codebook) or 0 in quantized.shape:
        return False
    return slot.opset >= 7 and 2 <= len(quantized.levels) <= 16


def _encode(quantized: Quantized, slot: Slot) -> Fragment:
    assert isinstance(quantized, Codebook)
    return lut.encode("byte_lut", quantized, slot, 8)


BYTE_LUT = Encoding("byte_lut", _accepts, _encode)
