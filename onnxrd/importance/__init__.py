"""How much an error in each weight costs: estimate it, keep it, load it."""

from onnxrd.importance.diagonal import fisher
from onnxrd.importance.estimators import Estimator
from onnxrd.importance.importance import DAMPING, Importance, identity, load_importance
from onnxrd.importance.supervised import Supervised, supervised

__all__ = [
    "DAMPING",
    "Estimator",
    "Importance",
    "Supervised",
    "fisher",
    "identity",
    "load_importance",
    "supervised",
]
