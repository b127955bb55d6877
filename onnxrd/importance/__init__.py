"""How much an error in each weight costs: estimate it, keep it, load it."""

from onnxrd.importance.estimators import Estimator
from onnxrd.importance.fisher import fisher
from onnxrd.importance.importance import Importance, identity, load_importance

__all__ = ["Estimator", "Importance", "fisher", "identity", "load_importance"]
