"""Trellis-coded weights: two interleaved grids, of which the parities of earlier codes choose one.

An eight-state trellis in systematic form (Ungerboeck, Channel coding with multilevel/phase signals,
1982; dependent quantization in VVC uses the same idea). The state bit of a weight is a linear
function of the parities before it, over GF(2) and with delays as powers of D::

    Q = D² p / (1 + D + D³),   so   Q_t = Q_{t-1} + Q_{t-3} + p_{t-2}   (mod 2)

Since 1 + D⁷ = (1 + D)(1 + D + D³)(1 + D² + D³), this is a window over the parities and then a sum
over every seventh: Q = D² (1 + D + D² + D⁴) p / (1 + D⁷). So a decoder needs no loop.

The grids are mirror images, {0, 1, 2, …, -½, -1½, …} and {0, -1, -2, …, ½, 1½, …}. A code is as
probable on one of them as on the other where the weights' density is symmetric, so that an entropy
code loses nothing by not knowing the state (JPEG 2000's union quantizers are built so).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PERIOD = 7
"""Steps after which the sum over parities comes back."""

WINDOW = (2, 3, 4, 6)
"""Delays of the parities that are added before."""


def state_bits(codes: Array) -> NDArray[np.bool_]:
    """Q [n], for codes [n] that begin in state zero: which of the grids each is on."""
    parities = (codes & 1).astype(np.int64)
    padded = np.pad(parities, (max(WINDOW), -len(parities) % PERIOD))
    length = len(padded) - max(WINDOW)
    window = sum(padded[max(WINDOW) - delay :][:length] for delay in WINDOW)
    sums = np.cumsum(np.asarray(window).reshape(-1, PERIOD), axis=0)
    return np.asarray(sums.ravel()[: len(parities)] % 2, np.bool_)


@dataclass(frozen=True, eq=False)
class Trellis:
    """A weight on two grids: ``ŵ = (1 - 2 Q) (k + ½ [k < 0]) · step``.

    Attributes:
        codes: [*weight], int16: k; the state runs along the flattened weight, in row-major order.
        step: scalar of the dtype of the weight: the distance of two levels on either grid.
    """

    codes: NDArray[np.int16]
    step: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return self.codes.shape

    def units(self) -> Array:
        """[*weight], ŵ / step, in the type that the decoder multiplies in."""
        wide = np.promote_types(self.step.dtype, np.float32)
        k, bits = self.codes.astype(wide), state_bits(self.codes.ravel()).reshape(self.shape)
        return np.asarray((k - np.clip(k, -0.5, 0)) * (1 - 2 * bits.astype(wide)))

    def dequantize(self) -> Array:
        """The approximated weight, [*weight], in the dtype of the step."""
        units = self.units()
        return np.asarray((units * self.step.astype(units.dtype)).astype(self.step.dtype))
