"""Codebooks of vectors, where these pay for their tables."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxrd.encodings.entropy.estimate import entropy
from onnxrd.errors import SettingError
from onnxrd.graph.weights import Weight
from onnxrd.importance import Importance
from onnxrd.quantizers import (
    Codebook,
    Quantized,
    VectorCodebook,
    vector_kmeans,
    weighted_distortion,
    weighted_kmeans,
)
from onnxrd.quantizers.kmeans import check_clusters
from onnxrd.quantizers.quantized import Array
from onnxrd.quantizers.vectors import FEWEST, MOST

GAIN = 1.0
"""Bits a weight that vectors may gain, at most: tables that take more are not tried."""

Book = Codebook | VectorCodebook


@dataclass(frozen=True)
class Vectors:
    """Quantizes to vectors of d weights, K of them; to shorter ones where their tables are dear.

    The table of K vectors is K·d numbers, which a small weight does not pay back. So fewer weights
    share a code there, d' < d, down to single ones, and K^(d'/d) vectors leave the bits of their
    codes alike. Each weight gets the d' for which D · 4^bits is least: D the distortion, bits a
    weight those of the table and of the codes by their entropy, since a bit more always quarters a
    distortion. They are tried from long to short, as long as that is better.

    Attributes:
        clusters: K.
        dimensions: d.
        seed: of the start.

    Raises:
        SettingError: one of them is out of range.
    """

    clusters: int
    dimensions: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_clusters(self.clusters)
        if not FEWEST <= self.dimensions <= MOST:
            raise SettingError(
                f"{self.dimensions} weights a code: choose a number from {FEWEST} to {MOST}."
            )

    def __call__(self, weights: Sequence[Weight], h: Importance) -> Iterator[Quantized]:
        """The weights, in turn.

        Raises:
            SettingError: the importance is not for this.
        """
        if h.quartic:
            raise SettingError(
                "gradient+hessian is an objective for codebooks of single weights: leave out "
                "--vector."
            )
        for weight in weights:
            yield self.best(weight.array(), h.damped(weight.name, weight.shape))

    def best(self, array: Array, importance: Array) -> Book:
        """The codebook of one weight.

        Args:
            array: [*weight].
            importance: [*weight], h >= 0.
        """
        energy = weighted_distortion(array, np.zeros((), array.dtype), importance)
        nothing = max(energy, np.finfo(np.float64).tiny) * 2.0**-48  # what rounding leaves anyway

        def cost(book: Book) -> float:
            spent = weighted_distortion(array, book.dequantize(), importance)
            return math.log2(max(spent, nothing)) / 2 + bits(book)

        best: tuple[float, Book] | None = None
        for dimensions, clusters in self.candidates(array):
            book = self._fitted(array, importance, dimensions, clusters)
            if best is not None and cost(book) >= best[0]:
                break
            best = cost(book), book
        assert best is not None
        return best[1]

    def candidates(self, array: Array) -> list[tuple[int, int]]:
        """Weights a code, and how many vectors of them, all at the same bits; longest first."""
        lengths = range(self.dimensions, 0, -1)
        alike = [(d, round(self.clusters ** (d / self.dimensions))) for d in lengths]
        *longer, last = [(d, k) for d, k in alike if k > 1]
        most = GAIN * array.size / (8 * array.itemsize)
        return [*((d, k) for d, k in longer if k * d <= most), last]

    def _fitted(self, array: Array, importance: Array, dimensions: int, clusters: int) -> Book:
        if dimensions == 1:
            return weighted_kmeans(array, importance, clusters)
        return vector_kmeans(array, importance, clusters, dimensions, seed=self.seed)

    def method(self, quantized: Quantized) -> str:
        """How a weight was quantized, in words."""
        if isinstance(quantized, VectorCodebook):
            return f"vector k-means, {quantized.dimensions} weights a code"
        return "k-means, as vectors would cost more than they gain"


def bits(book: Book) -> float:
    """A weight, of the codes by their entropy and of the levels."""
    return (float(entropy(book.counts)) + 8 * book.levels.nbytes) / max(1, math.prod(book.shape))


def shorter(vectors: Vectors, done: Sequence[Quantized]) -> tuple[str, ...]:
    """What has to be said of weights whose codes stand for fewer weights than asked for."""
    counts = [q.dimensions if isinstance(q, VectorCodebook) else 1 for q in done]
    fewer = [count for count in counts if count < vectors.dimensions]
    if not fewer:
        return ()
    return (
        f"{len(fewer)} of {len(counts)} weights have codes for fewer than {vectors.dimensions} of "
        f"their entries, {fewer.count(1)} of them for single ones, at the same bits a weight: "
        "they are too small to pay for larger tables of vectors.",
    )
