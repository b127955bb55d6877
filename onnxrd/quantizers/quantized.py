"""What a quantizer returns: an approximation of one weight in a form that can be encoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.quantizers.trellis import Trellis
from onnxrd.quantizers.vectors import VectorCodebook

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Codebook:
    """A weight whose every entry is one of a few levels: ``ŵ = levels[codes]``.

    Attributes:
        codes:  [*weight], unsigned integers (uint8 up to 256 levels, else uint16), all < L.
        levels: [L], the dtype of the weight, ascending; a level that is exactly 0.0 is a pruned
                one.
    """

    codes: Array
    levels: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return self.codes.shape

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """[L], how many weights have each level."""
        return np.bincount(self.codes.ravel(), minlength=len(self.levels))

    def dequantize(self) -> Array:
        """The approximated weight, [*weight], in the dtype of the levels."""
        return self.levels[self.codes]


@dataclass(frozen=True, eq=False)
class Sparse:
    """A weight of which some entries are exactly zero and the others are as they were.

    Attributes:
        values: [*weight], the dtype of the weight.
    """

    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return self.values.shape

    def dequantize(self) -> Array:
        """The approximated weight, [*weight]."""
        return self.values


class LateCodebook(Codebook):
    """A codebook whose codes are read, or made, anew each time they are asked for.

    Args:
        read: gives the codes.
        shape: of the codes.
        levels: as in `Codebook`.
    """

    def __init__(self, read: Callable[[], Array], shape: tuple[int, ...], levels: Array) -> None:
        vars(self).update(_read=read, _shape=shape, levels=levels)

    @property
    def codes(self) -> Array:
        """[*weight], out of memory again as soon as the caller lets go of them."""
        return np.asarray(vars(self)["_read"]())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return tuple(vars(self)["_shape"])


class LateSparse(Sparse):
    """The same of a `Sparse`, with its values."""

    def __init__(self, read: Callable[[], Array], shape: tuple[int, ...]) -> None:
        vars(self).update(_read=read, _shape=shape)

    @property
    def values(self) -> Array:
        """[*weight], out of memory again as soon as the caller lets go of them."""
        return np.asarray(vars(self)["_read"]())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return tuple(vars(self)["_shape"])


@dataclass(frozen=True, eq=False)
class Stacked:
    """A matrix of several ones below one another, whose rows are then put in their places.

    Attributes:
        parts: the matrices, [rows, *], all of as many columns and of one dtype.
        moved: [F], which rows of the weight the last F rows of the parts are. The other rows are in
            the order that they have in the weight.
    """

    parts: Sequence[Codebook | Trellis]
    moved: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:]

    def dequantize(self) -> Array:
        """The approximated weight, [*weight]."""
        stack = np.concatenate([part.dequantize() for part in self.parts])
        order = np.concatenate((np.delete(np.arange(len(stack)), self.moved), self.moved))
        whole = np.empty_like(stack)
        whole[order] = stack
        return whole


Quantized = Codebook | VectorCodebook | Sparse | Trellis | Stacked


def weight_dtype(quantized: Quantized) -> np.dtype[Any]:
    """The dtype of the weight."""
    if isinstance(quantized, Stacked):
        return weight_dtype(quantized.parts[0])
    if isinstance(quantized, Sparse):
        return quantized.values.dtype
    return (quantized.step if isinstance(quantized, Trellis) else quantized.levels).dtype
