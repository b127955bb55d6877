"""Error feedback: each column's rounding error is made good by the columns that come after it."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

BLOCK = 64


def feedback_factor(moment: Floats) -> Floats:
    """U with Uᵀ U = H⁻¹, upper triangular, [G, K, K], of H [G, K, K].

    Row j of U, divided by U_jj, says how the error of column j is spread over the columns after it;
    1 / U_jj² is what is left of H_jj once they have made good what they can.
    """
    flipped = moment[:, ::-1, ::-1]
    lower = np.linalg.cholesky(flipped)  # H = Lᵀ… of the reversed order, so that H⁻¹ = Uᵀ U
    inverse = np.linalg.inv(lower)
    return np.ascontiguousarray(inverse[:, ::-1, ::-1])


def error_feedback(target: Array, factor: Floats, bits: Floats | None = None, slope: float = 0.0):
    """Round to integers, column by column, each error fed back to the columns after it."""
    groups, rows, columns = target.shape
    rest = target.astype(np.float32)
    U = factor.astype(np.float32)
    diag = np.einsum("gkk->gk", U)
    codes = np.empty(target.shape, np.int32)
    weight = 1 / diag.astype(np.float64) ** 2
    weight /= weight.mean(axis=1, keepdims=True)
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        errors = np.empty((groups, rows, end - start), np.float32)
        block = rest[:, :, start:end]
        for j in range(end - start):
            w = block[:, :, j]
            q = np.rint(w)
            if bits is not None and slope > 0:
                toward = q - np.sign(q) 
                gain = bits[np.abs(q).astype(int)] - bits[np.abs(toward).astype(int)]
                cost = ((w - toward) ** 2 - (w - q) ** 2) * weight[:, start + j, None]
                q = np.where(cost < slope * gain, toward, q)
            codes[:, :, start + j] = q
            e = (w - q) / diag[:, start + j, None]
            errors[:, :, j] = e
            if j + 1 < end - start:
                block[:, :, j + 1 :] -= e[:, :, None] * U[:, None, start + j, start + j + 1 : end]
        if end < columns:
            rest[:, :, end:] -= errors @ U[:, start:end, end:]
    return codes
