"""Several codes in 16 bits, where that is better than in a byte. Opset 12, with functions.

| levels        | 7…9 | 17…40 |
|---------------|-----|-------|
| codes a word  | 5   | 3     |
| bits a weight | 3.2 | 5.33  |

The table has up to 65536 runs, each weight has its own, and onnxruntime keeps all that leads to it
until everything is folded. Hence only for weights that need more memory than their table.
"""

import math

from onnxrd.encodings import lut
from onnxrd.encodings.encoding import Encoding
from onnxrd.encodings.fragment import Fragment
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Codebook, Quantized

BYTES_A_WEIGHT = 32
"""How much memory the making of the table may take at load."""


def _accepts(quantized: Quantized, slot: Slot) -> bool:
    if not isinstance(quantized, Codebook) or 0 in quantized.shape or lut.stores_digits(slot):
        return False
    levels = len(quantized.levels)
    if levels > 256 or lut.bits_a_code(levels, 16) >= lut.bits_a_code(levels):
        return False
    entries = math.prod(quantized.shape)
    a_word = lut.codes_a_word(levels, entries, 16)
    making = levels**a_word * (16 + a_word * (16 + quantized.levels.itemsize))
    return bool(making <= BYTES_A_WEIGHT * entries)


def _encode(quantized: Quantized, slot: Slot) -> Fragment:
    assert isinstance(quantized, Codebook)
    return lut.encode("word_lut", quantized, slot, 16)


WORD_LUT = Encoding("word_lut", _accepts, _encode)
