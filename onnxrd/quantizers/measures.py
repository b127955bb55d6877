"""What a quantizer minimises, the rule that shows it did, and the check of what it is given."""

import ml_dtypes
import numpy as np

from onnxrd.errors import ImportanceError, ModelError
from onnxrd.quantizers.quantized import Array

_DTYPES = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)


def weighted_distortion(
    weight: Array, approximation: Array, importance: Array | None, quartic: Array | None = None
) -> float:
    """Predicted distortion of an approximated weight, summed in float64.

    D = ½ Σ h_i (w_i - ŵ_i)²   (Gao et al. 2019, golden rule 2)

    or, with quartic importance,  ½ Σ (h_i Δ_i² + ¼ q_i Δ_i⁴)   (half of their table 2).

    Args:
        weight: [*weight].
        approximation: [*weight].
        importance: [*weight], h, nats per weight²; None stands for one everywhere.
        quartic: [*weight], q; None stands for zero.

    Returns: nats; squared ones with quartic importance.
    """
    error = np.subtract(weight, approximation, dtype=np.float64)
    error *= error
    if quartic is not None:
        bent = error * quartic
        bent *= 0.25
        bent += 1 if importance is None else importance
        return float((error * bent).sum()) / 2
    return float(error.sum() if importance is None else (error * importance).sum()) / 2


def rule1_residual(weight: Array, approximation: Array, importance: Array | None) -> float:
    """How far an approximation is from golden rule 1; 0 for pruning and for k-means.

    r = Σ h_i ŵ_i (w_i - ŵ_i) / Σ h_i ŵ_i²   (Gao et al. 2019, golden rule 1 divided by its scale)

    Scaling ŵ by 1 + r is the best that a common factor can do.

    Args:
        weight: [*weight].
        approximation: [*weight].
        importance: [*weight], nats per weight²; None stands for one everywhere.

    Returns: the residual, without unit; 0 if ŵ is zero wherever it matters.
    """
    error = np.subtract(weight, approximation, dtype=np.float64)
    pull = approximation.astype(np.float64)
    if importance is not None:
        pull *= importance
    energy = float((pull * approximation).sum())
    return float((pull * error).sum()) / energy if energy > 0 else 0.0


def checked_importance(weight: Array, importance: Array | None, name: str = "the weight") -> Array:
    """The importance to reckon with: ones if there is none.

    Args:
        weight: [*weight].
        importance: [*weight].
        name: what to call the weight in a message.

    Returns: [*weight], finite and >= 0.

    Raises:
        ModelError: the weight is of no floating-point type that is known here, or is not finite.
        ImportanceError: the importance has another shape, or is negative or not finite.
    """
    if weight.dtype not in _DTYPES:
        raise ModelError(f"{name} is of type {weight.dtype}: cast it to float32 first")
    if not np.isfinite(weight).all():
        raise ModelError(
            f"{name} holds NaN or infinite entries: repair the model or leave this weight out"
        )
    if importance is None:
        return np.broadcast_to(np.float64(1), weight.shape)
    if importance.shape != weight.shape:
        raise ImportanceError(
            f"{name} has shape {weight.shape}, its importance {importance.shape}: "
            "compute the importance again, from this model"
        )
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise ImportanceError(
            f"the importance of {name} holds negative, NaN or infinite entries: "
            "compute it again, with fewer extreme calibration samples or in double precision"
        )
    return importance
