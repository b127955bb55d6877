"""Write a quantized weight into a plain .onnx file, at an exact price in bytes.

Each way of storing puts standard operators in front of the weight's consumers; stock onnxruntime
runs them once, when it loads the model, and is then as fast as ever.

Which one? Let `cheapest_together` choose, or force one by its name:

| encoding      | for                                | bits a weight                       | opset |
|---------------|------------------------------------|-------------------------------------|-------|
| `byte_lut`    | codebooks of 2, 3, 4, 6, 16 levels | 1, 1.6, 2, 2.67, 4                  | 7     |
| `native_int4` | codebooks of up to 16 levels       | 4; up to 4 levels, from opset 25: 2 | 21    |
| `word_lut`    | big ones of 7…9 and 17…40 levels   | 3.2 and 5.33                        | 12    |
| `byte_codes`  | any codebook                       | 8; above 256 levels: 16             | 7     |
| `vector_codes`| codebooks of vectors of d weights  | 8 / d; above 256 vectors: 16 / d    | 7     |
| `gap`         | weights that are mostly zero       | density × (2…8 + bits of a value)   | 11    |
| `entropy`     | all that has codes, together       | the entropy of the codes + 1 %      | 11    |
| `fill`        | weights with one value             | 0                                   | 9     |
| `dense`       | anything                           | 32 (float32)                        | any   |

Parts of a stacked weight are encoded each on its own: `apart` before, `together` afterwards. Beside
these, `half` stores vectors that are no weights, such as biases, at half precision.

How::

    places = slots(model, ["conv1.weight", "fc.weight"])
    fragments = cheapest_together(quantized, places)       # both by name of the weight
    FileSize(model, places)(fragments.values())            # bytes of the file
    write(copy_of_model, fragments)
"""

from onnxrd.encodings.encoding import Encoding
from onnxrd.encodings.entropy import OPSET as ENTROPY_OPSET
from onnxrd.encodings.entropy import entropy_coded, estimated_nbytes, spacing
from onnxrd.encodings.fragment import DOMAIN, Fragment, load_nbytes, together_nbytes
from onnxrd.encodings.half import half, worth_halving
from onnxrd.encodings.registry import (
    ENCODINGS,
    cheapest,
    cheapest_together,
    leaner,
    options,
)
from onnxrd.encodings.slot import Constants, Slot, slots
from onnxrd.encodings.stacking import apart, together
from onnxrd.encodings.writing import FileSize, drop_repetitions, write

__all__ = [
    "DOMAIN",
    "ENCODINGS",
    "ENTROPY_OPSET",
    "Constants",
    "Encoding",
    "FileSize",
    "Fragment",
    "Slot",
    "apart",
    "cheapest",
    "cheapest_together",
    "drop_repetitions",
    "entropy_coded",
    "estimated_nbytes",
    "half",
    "leaner",
    "load_nbytes",
    "options",
    "slots",
    "spacing",
    "together",
    "together_nbytes",
    "worth_halving",
    "write",
]
