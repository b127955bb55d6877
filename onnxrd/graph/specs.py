"""What a model wants to be fed."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name:  as the graph calls it.
        dtype: of the elements; `object` for strings.
        shape: a number for a fixed axis, a name or None for one that may vary; None when even the
            rank is unknown.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None

    @property
    def fixed_batch(self) -> int | None:
        """The number that the model prescribes for the first axis, if it does."""
        first = self.shape[0] if self.shape else None
        return first if isinstance(first, int) else None

    def __str__(self) -> str:
        return f"{self.name!r} ({self.dtype.name} {format_shape(self.shape)})"


def format_shape(shape: tuple[int | str | None, ...] | None) -> str:
    """A shape for the eyes of the user: `[N, 3, ?]`."""
    if shape is None:
        return "of any shape"
    return "[" + ", ".join("?" if axis is None else str(axis) for axis in shape) + "]"
