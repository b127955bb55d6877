"""Levels on a uniform grid through zero need their spacing alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def zero_code(levels: NDArray[Any]) -> int:
    """The code of the level nearest to zero; of two the first."""
    return int(np.abs(levels).argmin())


def spacing(levels: NDArray[Any]) -> NDArray[Any] | None:
    """The step, a scalar, for which every level is ``(code - zero_code) · step`` to the last bit.

    None if there is none. Half precision is multiplied in single and rounded.

    Args:
        levels: [L], ascending.
    """
    zero = zero_code(levels)
    if len(levels) < 2:
        return None
    wide = levels.dtype if levels.dtype == np.float64 else np.dtype(np.float32)
    nearest = levels[zero + 1] if zero + 1 < len(levels) else -levels[zero - 1]
    multiples = np.arange(-zero, len(levels) - zero).astype(wide) * nearest.astype(wide)
    return np.asarray(nearest) if np.array_equal(multiples.astype(levels.dtype), levels) else None
