"""Second moments of a layer's inputs: what errors in a row of its weight cost together."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

DRAWS = 2
"""How many independent draws a sample counts as, at most: its positions are alike.

On data never seen EfficientNet-Lite0, a ResNet-20 and a sentence encoder need .18, .08 and .03 bits
a weight less for the same damage than where all positions count. With 1 and 4 it is .12, .01, .04
and .18, .07, .00.
"""

ROUNDING = 10 * float(np.finfo(np.float32).eps)
"""Share of the trace of Σ x̂ x̂ᵀ that may be the rounding of products in single precision."""


@dataclass
class Moments:
    """Sums over positions of a layer's inputs: x in the original network, x̂ in the quantized one.

    Attributes:
        groups: G.
        columns: K.
        count: positions so far.
        draws: as how many independent ones they count.
        x: [G, K], Σ x.
        xq: [G, K], Σ x̂.
        qq: [G, K, K], Σ x̂ x̂ᵀ.
        xxq: [G, K, K], Σ x x̂ᵀ.
    """

    groups: int
    columns: int
    count: int = 0
    draws: int = 0
    x: Floats = field(init=False)
    xq: Floats = field(init=False)
    qq: Floats = field(init=False)
    xxq: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.x, self.xq = np.zeros((2, self.groups, self.columns))
        self.qq, self.xxq = np.zeros((2, self.groups, self.columns, self.columns))

    def add(self, original: Array, samples: int, quantized: Array | None = None) -> None:
        """Count positions in.

        Args:
            original: [G, P, K], x.
            samples: that the positions are of.
            quantized: [G, P, K], x̂ at the same positions; None where it is the same.
        """
        other = original if quantized is None else quantized
        self.count += original.shape[1]
        self.draws += min(original.shape[1], DRAWS * samples)
        self.x += original.sum(axis=1, dtype=np.float64)
        self.xq += other.sum(axis=1, dtype=np.float64)
        square = other.transpose(0, 2, 1) @ other
        self.qq += square
        self.xxq += square if quantized is None else original.transpose(0, 2, 1) @ other

    def __add__(self, other: "Moments") -> "Moments":
        """The moments over the positions of both."""
        both = Moments(self.groups, self.columns, self.count + other.count)
        both.draws = self.draws + other.draws
        both.x, both.xq = self.x + other.x, self.xq + other.xq
        both.qq, both.xxq = self.qq + other.qq, self.xxq + other.xxq
        return both

    def second(self, *, centred: bool) -> tuple[Floats, Floats]:
        """E[x̂ x̂ᵀ] and E[x x̂ᵀ], [G, K, K] each; centred: without the product of the means.

        Where x̂ hardly varies the difference is little but rounding, and need not be positive
        definite. So as much as may be rounding is added to the diagonals of both, which draws
        what is solved with them to the identity.
        """
        qq, xxq = self.qq / self.count, self.xxq / self.count
        if centred:
            x, xq = self.means()
            rounding = ROUNDING * np.einsum("gkk->g", qq)[:, None, None] * np.eye(self.columns)
            qq = qq - xq[:, :, None] * xq[:, None, :] + rounding
            xxq = xxq - x[:, :, None] * xq[:, None, :] + rounding
        return qq, xxq

    def means(self) -> tuple[Floats, Floats]:
        """E[x] and E[x̂], [G, K] each."""
        return self.x / self.count, self.xq / self.count
