"""The decoder that byte codes and native 4-bit codes have in common."""

import onnx

from onnxrd.encodings.fragment import decoder
from onnxrd.quantizers import Codebook


def lookup(opset: int) -> onnx.FunctionProto:
    """The function (codes [*weight], levels [L]) → levels[codes] [*weight]; 70 bytes in the file.

    Codes may be of any integer type that Cast knows.
    """
    return decoder(opset, "lookup (q, l) => (w)", "i = Cast<to: int = 6>(q) w = Gather(l, i)")


def lookup_load_nbytes(codebook: Codebook) -> int:
    """Bytes of the indices and of the weight that the function makes of a codebook."""
    return codebook.codes.size * (4 + codebook.levels.itemsize)
