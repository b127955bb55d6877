"""The golden rules as residuals, and the network for which they can be proved.

An approximation ŵ under some constraint (k levels, a share of zeros, …) is as good as can be if

1. ŵᵀ H (w - ŵ) = 0: nothing is gained by scaling it;
2. (w - ŵ)ᵀ H (w - ŵ) is the least that the constraint allows.

(Gao et al. 2019, section 4.) H is the importance: [*weight] if it is diagonal, else [n, n]. Of
approximations there may be many at once, [..., *weight]; weights, errors and sums are in float64.
"""

import numpy as np
from numpy.typing import ArrayLike

from onnxrd.errors import ImportanceError
from onnxrd.rate_distortion.histogram import Array, Floats


def quadratic_distortion(weight: Array, approximation: Array, importance: Array) -> Floats:
    """Predicted distortion of approximations, ½ (w - ŵ)ᵀ H (w - ŵ).

    Args:
        weight: [*weight], n entries.
        approximation: [..., *weight].
        importance: [*weight] or [n, n], nats per weight².

    Returns: [...], nats.

    Raises:
        ImportanceError: the importance has another shape.
    """
    error = np.subtract(weight, approximation, dtype=np.float64)
    return _form(error, error, importance, weight.shape) / 2


def rule1_residual(weight: Array, approximation: Array, importance: Array) -> Floats:
    """How far approximations are from golden rule 1.

    r = ŵᵀ H (w - ŵ) / ŵᵀ H ŵ; scaling ŵ by 1 + r is the best that a common factor can do.

    Args:
        weight: [*weight], n entries.
        approximation: [..., *weight].
        importance: [*weight] or [n, n], nats per weight².

    Returns: [...], without unit; 0 if ŵ is zero wherever it matters.

    Raises:
        ImportanceError: the importance has another shape.
    """
    error = np.subtract(weight, approximation, dtype=np.float64)
    energy = _form(approximation, approximation, importance, weight.shape)
    pull = _form(approximation, error, importance, weight.shape)
    return np.asarray(np.divide(pull, energy, out=np.zeros_like(pull), where=energy > 0))


def rule2_residual(weight: Array, approximation: Array, importance: Array, rivals: Array) -> Floats:
    """How far approximations are from golden rule 2.

    r = (d(ŵ) - min d(rivals)) / d(0), with d the predicted distortion.

    Args:
        weight: [*weight], n entries.
        approximation: [..., *weight].
        importance: [*weight] or [n, n], nats per weight².
        rivals: [R, *weight], what else meets the constraint; all of it, if r is to prove anything.

    Returns: [...], without unit; positive if a rival is better.

    Raises:
        ImportanceError: the importance has another shape.
    """
    least = quadratic_distortion(weight, rivals, importance).min()
    excess = quadratic_distortion(weight, approximation, importance) - least
    scale = quadratic_distortion(weight, np.zeros_like(weight), importance)
    return np.asarray(np.divide(excess, scale, out=np.zeros_like(excess), where=scale > 0))


def _form(left: Array, right: Array, importance: Array, shape: tuple[int, ...]) -> Floats:
    """Leftᵀ H right, [...], of [..., *weight]."""
    n = int(np.prod(shape))
    left, right = (v.reshape(*v.shape[: v.ndim - len(shape)], n) for v in (left, right))
    if importance.shape == shape:
        weighted = right * importance.reshape(n).astype(np.float64)
    elif importance.shape == (n, n):
        weighted = right @ importance.T.astype(np.float64)
    else:
        raise ImportanceError(
            f"importance of shape {importance.shape} for a weight of shape {shape}: "
            f"it must have the same shape or be a matrix {(n, n)}"
        )
    return np.asarray((left * weighted).sum(axis=-1))


def relu_error(weight: Array, approximation: Array, variance: ArrayLike) -> Floats:
    """Mean squared error of a layer of ReLUs on Gaussian inputs, in closed form.

    E Σ_j (relu(w_jᵀx) - relu(ŵ_jᵀx))²,  x ~ N(0, diag σ²)

    The cross term is E relu(a) relu(b) = |a||b| (sin θ + (π - θ) cos θ) / 2π for jointly Gaussian
    a, b at the angle θ (Cho and Saul 2009, the arc-cosine kernel of order one).

    The importance of w_j is 2 E[∇f ∇fᵀ] = diag σ² for each unit j (eq. 5), and for a single unit
    the ŵ that keeps golden rule 2 among those that keep rule 1 has the least error of them (Gao et
    al. 2019, theorem 4). Two things that does not say. At the angle θ the best |ŵ| is
    |w| (sin θ + (π - θ) cos θ) / π, which is more than the |w| cos θ of rule 1 (lengths in the
    metric diag σ²). And if several units share one constraint, rule 2 may divide it badly.

    Args:
        weight: [units, n].
        approximation: [..., units, n].
        variance: [n], of the inputs, or a scalar.

    Returns: [...], squared output.
    """
    scale = np.sqrt(np.asarray(variance, dtype=np.float64))
    w, v = weight * scale, approximation * scale
    norms, others = (np.linalg.norm(u, axis=-1) for u in (w, v))
    product = norms * others
    cosine = np.divide((w * v).sum(axis=-1), product, out=np.ones_like(product), where=product > 0)
    angle = np.arccos(np.clip(cosine, -1, 1))
    cross = product * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    return np.asarray(((norms**2 + others**2) / 2 - 2 * cross).sum(axis=-1))
