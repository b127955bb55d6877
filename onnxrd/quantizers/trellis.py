"""Trellis-coded weights: two interleaved grids, of which the parities of earlier codes choose one.

A trellis of 32 states in systematic form (Ungerboeck, Channel coding with multilevel/phase signals,
1982; dependent quantization in VVC uses the same idea with 8). The state bit of a weight is a
linear function of the parities before it, over GF(2) and with delays as powers of D::

    Q = D³ p / (1 + D² + D⁵),   so   Q_t = Q_{t-2} + Q_{t-5} + p_{t-3}   (mod 2)

Since 1 + D² + D⁵ divides 1 + D³¹, that is a window over the parities, D³ (1 + D³¹)/(1 + D² + D⁵),
and then a sum over every 31st. So a decoder needs no loop.

The grids are mirror images, {0, 1, 2, …, -½, -1½, …} and {0, -1, -2, …, ½, 1½, …}. A code is as
probable on one of them as on the other where the weights' density is symmetric, so that an entropy
code loses nothing by not knowing the state (JPEG 2000's union quantizers are built so).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

STATES = 32
RECURSION = (2, 5)
"""Delays of the state bits in Q_t."""

DELAYS = max(RECURSION)
"""Steps in which any state can be reached from any other, and in which it shows."""

INPUT = 3
"""Delay of the parity in Q_t."""

PERIOD = 31
"""Steps after which the sum over parities comes back."""

WINDOW = (3, 5, 7, 8, 9, 11, 12, 16, 17, 18, 19, 20, 23, 24, 26, 29)
"""Delays of the parities that are added before."""


def _after() -> NDArray[np.intp]:
    """[32, 2], the state behind a step, by the state before it and the parity of its code.

    Bits z_0 … z_4 of a state at step t are what the past adds to Q_t … Q_{t+4}, and z_0 is Q_t:
    all move down, and Q_t and p_t are added where the recursion has them.
    """
    state, parity = np.arange(STATES)[:, None], np.arange(2)
    recursion = sum(1 << delay - 1 for delay in RECURSION)
    return np.asarray(state >> 1 ^ (state & 1) * recursion ^ parity << INPUT - 1, np.intp)


AFTER = _after()


def state_bits(codes: Array) -> NDArray[np.bool_]:
    """Q [n], for codes [n] that begin in state zero: which of the grids each is on."""
    parities = (codes & 1).astype(np.int64)
    padded = np.pad(parities, (max(WINDOW), -len(parities) % PERIOD))
    length = len(padded) - max(WINDOW)
    window = sum(padded[max(WINDOW) - delay :][:length] for delay in WINDOW)
    sums = np.cumsum(np.asarray(window).reshape(-1, PERIOD), axis=0)
    return np.asarray(sums.ravel()[: len(parities)] % 2, np.bool_)


def lead_in(codes: Array) -> NDArray[np.int16]:
    """[5], codes that lead from state zero to the state behind other codes [n]."""
    wanted = _response(codes)
    trials = (np.arange(STATES)[:, None] >> np.arange(DELAYS) & 1).astype(np.int16)
    return next(trial for trial in trials if (_response(trial) == wanted).all())


def _response(codes: Array) -> NDArray[np.bool_]:
    """[5], the state bits of zeros behind codes [n]: the state itself."""
    return state_bits(np.append(codes, np.zeros(DELAYS, codes.dtype)))[-DELAYS:]


def units(codes: Array, bits: Array) -> NDArray[np.float32]:
    """(1 - 2 Q) (k + ½ [k < 0]) for codes k and state bits Q."""
    k = codes.astype(np.float32)
    return np.asarray((k - np.clip(k, -0.5, 0)) * (1 - 2 * bits.astype(np.float32)), np.float32)


@dataclass(frozen=True, eq=False)
class Trellis:
    """A weight on two grids: ``ŵ = (1 - 2 Q) (k + ½ [k < 0]) · step``.

    Attributes:
        codes: [*weight], int16: k.
        step: scalar of the dtype of the weight: the distance of two levels on either grid.
        turned: the state runs along the first axis before the others; in row-major order if not.
    """

    codes: NDArray[np.int16]
    step: Array
    turned: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return self.codes.shape

    @property
    def stream(self) -> NDArray[np.int16]:
        """[n], the codes in the order in which the state runs."""
        return in_order(self.codes, turned=self.turned)

    def dequantize(self) -> Array:
        """The approximated weight, [*weight], in the dtype of the step."""
        wide = np.promote_types(self.step.dtype, np.float32)
        levels = units(self.stream, state_bits(self.stream)).astype(wide)
        levels = back(levels, self.shape, turned=self.turned)
        return np.asarray((levels * self.step.astype(wide)).astype(self.step.dtype))


def in_order(weight: Array, *, turned: bool) -> Array:
    """The entries [n] of a weight in the order of the state, see `Trellis`."""
    return weight.reshape(weight.shape[0], -1).T.ravel() if turned else weight.ravel()


def back(entries: Array, shape: tuple[int, ...], *, turned: bool) -> Array:
    """The weight [*weight] of entries [n] in the order of the state."""
    return (entries.reshape(-1, shape[0]).T if turned else entries).reshape(shape)
