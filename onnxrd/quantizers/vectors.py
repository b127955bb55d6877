"""Vector codebooks: several neighbouring weights share a code."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FEWEST, MOST = 2, 8
"""Weights a code."""


@dataclass(frozen=True, eq=False)
class VectorCodebook:
    """A weight cut into runs of d neighbours, each of them one of a few vectors.

    Attributes:
        codes:  [⌈n/d⌉], unsigned integers (uint8 up to 256 vectors, else uint16), all < K, of the
                runs in row-major order. What the last one has too much is cut off.
        levels: [K, d], the dtype of the weight, the vectors in order of falling use: the codes of
                different weights are then distributed alike, and may share a stream.
        shape:  of the weight, n entries.
    """

    codes: Array
    levels: Array
    shape: tuple[int, ...]

    @property
    def dimensions(self) -> int:
        """d, how many weights share a code."""
        return int(self.levels.shape[1])

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """[K], how many runs are each of the vectors."""
        return np.bincount(self.codes, minlength=len(self.levels))

    def dequantize(self) -> Array:
        """The approximated weight, [*weight], in the dtype of the levels."""
        entries = self.levels[self.codes].reshape(-1)
        return entries[: math.prod(self.shape)].reshape(self.shape)


def runs_of(weight: Array, dimensions: int, fill: float | None = None) -> Array:
    """[⌈n/d⌉, d], the entries of a weight in row-major order.

    Args:
        weight: [*weight].
        dimensions: d.
        fill: what fills the last run up; None for the last entry.
    """
    flat = weight.reshape(-1)
    if missing := -flat.size % dimensions:
        more = flat[-1:] if fill is None else np.full(1, fill, flat.dtype)
        flat = np.concatenate((flat, more.repeat(missing)))
    return flat.reshape(-1, dimensions)
