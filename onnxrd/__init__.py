"""Rate-distortion compression of ONNX models.

>>> import onnxrd
>>> result = onnxrd.quantize("model.onnx", "small.onnx", clusters=16, data="calib.npz")
>>> print(result.ratio, result.evaluation.distortion)
"""

from onnxrd.allocation.target import Target
from onnxrd.archive import Packed, load_session, pack, unpack
from onnxrd.bounds import NetworkBound, bound
from onnxrd.calibration import Calibration
from onnxrd.calibration import load as load_data
from onnxrd.diagnosis import GoldenRules, golden_rules
from onnxrd.errors import (
    CalibrationError,
    ImportanceError,
    ModelError,
    OnnxrdError,
    SettingError,
    TargetError,
    VerificationError,
)
from onnxrd.evaluation import Evaluation, evaluate
from onnxrd.graph.model import Model
from onnxrd.graph.model import load as load_model
from onnxrd.graph.weights import Weight, find_weights
from onnxrd.importance import Estimator, Importance, fisher, load_importance
from onnxrd.options import Options
from onnxrd.pipeline import compress, curve, prune, quantize
from onnxrd.report.curve import Curve
from onnxrd.report.result import Layer, Result

__all__ = [
    "Calibration",
    "CalibrationError",
    "Curve",
    "Estimator",
    "Evaluation",
    "GoldenRules",
    "Importance",
    "ImportanceError",
    "Layer",
    "Model",
    "ModelError",
    "NetworkBound",
    "OnnxrdError",
    "Options",
    "Packed",
    "Result",
    "SettingError",
    "Target",
    "TargetError",
    "VerificationError",
    "Weight",
    "bound",
    "compress",
    "curve",
    "evaluate",
    "find_weights",
    "fisher",
    "golden_rules",
    "load_data",
    "load_importance",
    "load_model",
    "load_session",
    "pack",
    "prune",
    "quantize",
    "unpack",
]
