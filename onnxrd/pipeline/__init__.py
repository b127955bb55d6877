"""Where the rooms meet: a model and data in, a smaller verified model out.

::

    model.onnx ──load──► Model ──find_weights──► weights
    data ──► Calibration ──fisher──► Importance ┐
    weights ────────────────────────────────────┴─quantizers─► Quantized ──encodings──► fragments
    Model + fragments ──write──► file ──verify, evaluate──► Result
"""

from onnxrd.measurement import measure_importance
from onnxrd.pipeline.codebooks import prune, quantize
from onnxrd.pipeline.compress import compress
from onnxrd.pipeline.curve import curve

__all__ = ["compress", "curve", "measure_importance", "prune", "quantize"]
