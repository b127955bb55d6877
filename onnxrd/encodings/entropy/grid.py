"""Levels on a uniform grid through zero need their spacing alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def zero_code(levels: NDArray[Any]) -> int:
    """The code of the level nearest to zero; of two the first."""
    return int(np.abs(levels).argmin())


def spacing(levels: NDArray[Any]) -> NDArray[Any] | None:
    """The step, a scalar, for which every level is ``(code - zero_code) · step`` to the last bit.

    None if there is none.

    Args:
        levels: [L], ascending.
    """
    zero = zero_code(levels)
    if len(levels) < 2:
        return None
    multiples = np.arange(-zero, len(levels) - zero).astype(levels.dtype)
    nearest = levels[zero + 1] if zero + 1 < len(levels) else -levels[zero - 1]
    return np.asarray(nearest) if np.array_equal(multiples * nearest, levels) else None
