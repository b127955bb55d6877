"""Error feedback: each column's rounding error is made good by the columns that come after it.

With y = W x the mean squared change of a row's output is eᵀ H e, e being the row's error and
H = E[x xᵀ]. H = L Lᵀ-like factors turn that into a sum over columns of (what is left of an error
once later columns have compensated for it)², and each column in turn is rounded with all earlier
errors in mind (optimal brain surgeon, in the order of columns of GPTQ, Frantar et al. 2023).
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it, at least: some inputs are dead."""

REPAIR_DAMPING = 0.05
"""The same for the target of the repair, which trusts the moments more."""

MOST_DAMPING = 10.0

BLOCK = 64


def uncertainty(second: Floats, count: int) -> Floats:
    """How much is to be added to the diagonal of second moments because samples are few.

    Oracle approximating shrinkage (Chen, Wiesel, Eldar, Hero 2010) mixes a share ρ of mean(diag) I
    with 1 - ρ of the moments. Without it, error feedback hides its errors where the samples at hand
    happen not to look.

    Args:
        second: [G, K, K].
        count: samples that they were taken over.

    Returns: [G], ρ / (1 - ρ), a share of the mean of the diagonal.
    """
    columns = second.shape[1]
    squares = np.einsum("gkl,gkl->g", second, second)
    trace = np.einsum("gkk->g", second) ** 2
    spread = np.maximum(squares - trace / columns, np.finfo(np.float64).tiny)
    few = 2 / columns
    share = ((1 - few) * squares + trace) / ((count + 1 - few) * spread)
    share = np.clip(share, 0, MOST_DAMPING / (1 + MOST_DAMPING))
    return np.asarray(share / (1 - share))


def repaired_target(
    matrices: Floats, second: Floats, cross: Floats, doubt: Floats | float = 0.0
) -> Floats:
    """What to aim at so that the layer also makes good what the layers before it broke.

    min_T E|W x - T x̂|² + ρ|W - T|²  ⇒  T = W (E[x x̂ᵀ] + ρ) (E[x̂ x̂ᵀ] + ρ)⁻¹

    Args:
        matrices: [G, R, K], W.
        second: [G, K, K], E[x̂ x̂ᵀ], x̂ being the inputs behind quantized layers.
        cross: [G, K, K], E[x x̂ᵀ].
        doubt: [G], see `uncertainty`.

    Returns: [G, R, K].
    """
    ridge = _ridge(second, np.maximum(doubt, REPAIR_DAMPING))
    left = (matrices @ (cross + ridge)).transpose(0, 2, 1)
    target = np.linalg.solve(second + ridge, left)  # the left side is symmetric
    return np.asarray(target.transpose(0, 2, 1), np.float64)


def error_feedback(
    target: Floats, second: Floats, step: float, doubt: Floats | float = 0.0
) -> Integers:
    """Round a layer to multiples of a step, every error fed back to the columns still to come.

    Args:
        target: [G, R, K], rows to approximate.
        second: [G, K, K], second moment of the inputs; it is damped here.
        step: of the grid.
        doubt: [G], see `uncertainty`.

    Returns: integers [G, R, K].
    """
    order, factor = _ordered_factor(second, doubt)
    rest = np.take_along_axis(target / step, order[:, None, :], axis=2).astype(np.float32)
    spread = (factor / np.einsum("gkk->gk", factor)[:, :, None]).astype(np.float32)
    integers = np.empty(target.shape, np.float32)
    columns = target.shape[2]
    for start in range(0, columns, BLOCK):
        block = slice(start, min(start + BLOCK, columns))
        errors = _round_block(rest[:, :, block], spread[:, block, block], integers[:, :, block])
        if block.stop < columns:
            rest[:, :, block.stop :] -= errors @ spread[:, block, block.stop :]
    result = np.empty(target.shape, np.int32)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], target.shape), integers, axis=2)
    return result


def _round_block(rest: Array, spread: Array, integers: Array) -> Array:
    """Round some columns, [G, R, B], in place; returns their errors."""
    errors = np.empty_like(rest)
    for j in range(rest.shape[2]):
        integers[:, :, j] = np.rint(rest[:, :, j])
        errors[:, :, j] = rest[:, :, j] - integers[:, :, j]
        rest[:, :, j + 1 :] -= errors[:, :, j, None] * spread[:, None, j, j + 1 :]
    return errors


def _ordered_factor(second: Floats, doubt: Floats | float) -> tuple[NDArray[np.intp], Floats]:
    """Columns in the order of falling diagonal [G, K], and U with Uᵀ U = H⁻¹ in that order.

    U is upper triangular; row j over U_jj says how the error of column j is to be spread over the
    columns after it, and 1/U_jj² is what is left of its cost.
    """
    damped = second + _ridge(second, np.maximum(doubt, DAMPING))
    order = np.argsort(-np.einsum("gkk->gk", damped), axis=1, kind="stable")
    damped = np.take_along_axis(damped, order[:, :, None], axis=1)
    damped = np.take_along_axis(damped, order[:, None, :], axis=2)
    lower = np.linalg.cholesky(damped[:, ::-1, ::-1])
    factor = np.linalg.inv(lower)[:, ::-1, ::-1]
    return order, np.ascontiguousarray(factor)


def _ridge(second: Floats, share: Floats) -> Floats:
    """Shares ([G] or one for all) of the mean of the diagonal, on the diagonal."""
    columns = second.shape[1]
    mean = np.einsum("gkk->g", second) / columns
    floor = max(float(mean.max(initial=0)) * 1e-6, np.finfo(np.float64).tiny)
    return np.asarray((share * np.maximum(mean, floor))[:, None, None] * np.eye(columns))
