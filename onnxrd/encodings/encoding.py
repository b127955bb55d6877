"""What a way of storing a weight has to provide."""

from collections.abc import Callable
from dataclasses import dataclass

from onnxrd.encodings.fragment import Fragment
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Quantized


@dataclass(frozen=True)
class Encoding:
    """One way of storing a quantized weight. Each has a file of its own and a line in `registry`.

    Attributes:
        name: for `force` and for viewers.
        accepts: (quantized, slot) → whether the weight can be stored so in that model.
        encode: (quantized, slot) → the fragment that decodes to exactly `quantized.dequantize()`.
            Only called if accepted. Cheap: big tensors are packed when they are written.
    """

    name: str
    accepts: Callable[[Quantized, Slot], bool]
    encode: Callable[[Quantized, Slot], Fragment]
