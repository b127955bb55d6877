"""What a weight will take in a stream, from the counts of its codes alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES = 1.003
"""Bytes of lanes a byte of code words, about."""

REDUNDANCY = 1.006
"""Bits of code words a bit of entropy where symbols may be runs, about."""

LONGEST_RUN = 16
"""Codes a symbol, at most; each symbol takes a bit at least."""


def entropy(counts: NDArray[Any]) -> NDArray[np.float64]:
    """[*], bits of information in codes that occur so often in all, -Σ c log₂(c / Σc).

    Args:
        counts: [*, L], non-negative.
    """
    total = counts.sum(-1)
    logs = np.log2(np.maximum(counts, 1))
    return np.asarray(total * np.log2(np.maximum(total, 1)) - (counts * logs).sum(-1))


def estimated_nbytes(counts: NDArray[Any], levels_nbytes: int = 4) -> float:
    """About how many bytes a weight adds to a model whose weights share streams.

    For the choice among many candidates; `entropy_coded` has the exact price.

    Args:
        counts: [L], how often each level occurs.
        levels_nbytes: bytes of its levels: those of one number where they lie on a uniform grid.
    """
    bits = max(float(entropy(counts)) * REDUNDANCY, float(counts.sum()) / LONGEST_RUN)
    return bits / 8 * LANES + levels_nbytes + 40
