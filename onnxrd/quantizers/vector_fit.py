"""Weighted k-means of runs of neighbouring weights: a codebook of vectors.

Vectors fill space better than the cells that levels make of it, and go where runs are, which gains
up to .25 bit a weight on codes of variable length and more on plain ones. Their table, K·d numbers,
is the price.

scikit-learn's k-means finds vectors for a sample of the runs, every run as important as its weights
on average. Lloyd's iterations over all runs then heed the importance of each weight.
"""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from onnxrd.errors import SettingError
from onnxrd.quantizers.kmeans import check_clusters, code_dtype
from onnxrd.quantizers.measures import checked_importance
from onnxrd.quantizers.quantized import Array
from onnxrd.quantizers.vectors import FEWEST, MOST, VectorCodebook, runs_of

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

SAMPLE = 1 << 16
"""Runs that scikit-learn sees, or eight for each vector if that is more."""

SPREAD = 1 << 10
"""Up to so many vectors start far from one another; more of them, anywhere."""

ITERATIONS, ROUNDS = 10, 20
"""Of k-means on the sample; over all runs."""

SETTLED = 0.01
"""Share of the runs below which it does not pay to go on with those that change their vector."""

WORK = 1 << 33
"""Distances that the rounds over all runs take together, unless a single one takes more."""

AT_ONCE = 1 << 22
"""Distances in memory at a time."""

LEAST = 2.0**-20
"""Share of the mean that counts as the importance of a weight without, when vectors are chosen."""


def vector_kmeans(
    weight: Array, importance: Array | None, clusters: int, dimensions: int, *, seed: int = 0
) -> VectorCodebook:
    """Vectors of little weighted distortion, and for each run of weights the nearest one.

    min ½ Σ h_i (w_i - ŵ_i)², found as a local minimum. Every entry of a vector is the weighted mean
    of the weights it stands for, rounded to the dtype of the weight, so golden rule 1 holds up to
    that rounding. Weights without importance move no vector.

    Args:
        weight:     [*weight], n entries, float16, bfloat16, float32 or float64.
        importance: [*weight], nats per weight², >= 0; None stands for one everywhere.
        clusters:   K, number of vectors, 2 … 65536; fewer are used if there are fewer runs.
        dimensions: d, weights a vector, 2 … 8.
        seed:       of the sample and of the start.

    Raises:
        SettingError: clusters or dimensions is out of range.
        ModelError: the weight has another dtype, or is not finite.
        ImportanceError: the importance has another shape, or is negative or not finite.
    """
    check_clusters(clusters)
    if not FEWEST <= dimensions <= MOST:
        raise SettingError(f"{dimensions} weights a code: choose a number from {FEWEST} to {MOST}")
    h = checked_importance(weight, importance)
    if not h.any():
        h = np.ones(weight.shape)
    runs = _Runs(weight, h, dimensions)
    vectors, codes = runs.fitted(clusters, np.random.default_rng(seed))
    used = np.argsort(-np.bincount(codes, minlength=len(vectors)), kind="stable")
    used = used[: len(np.unique(codes))]
    renumbered = np.empty(len(vectors), code_dtype(used))
    renumbered[used] = np.arange(len(used))
    levels = (vectors[used] + 0.0).astype(weight.dtype)  # no level is -0.0
    return VectorCodebook(renumbered[codes], levels, weight.shape)


class _Runs:
    """Runs of weights, [m, d], with what errors in them cost.

    Distances are reckoned in units in which no weight is further from their middle than one.
    """

    def __init__(self, weight: Array, importance: Array, dimensions: int) -> None:
        self._runs = runs_of(weight, dimensions)
        self._mass = runs_of(importance, dimensions, 0.0)
        flat = weight.reshape(-1).astype(np.float64)
        low, high = (flat.min(), flat.max()) if flat.size else (0.0, 0.0)
        self._middle, self._unit = low / 2 + high / 2, high / 2 - low / 2 or 1.0
        self._heaviest = float(self._mass.max(initial=0)) or 1.0
        total = float((self._mass / self._heaviest).sum(dtype=np.float64))
        self._least = LEAST * total / max(weight.size, 1)

    def fitted(self, clusters: int, rng: np.random.Generator) -> tuple[Floats, Codes]:
        """Vectors [K, d], and which of them each run is, [m]."""
        every, size = np.arange(len(self._runs)), max(SAMPLE, 8 * clusters)
        few = len(every) <= size
        points, mass, codes = self._distinct(every if few else rng.choice(every, size, False))
        if len(points) <= clusters:
            if not few:
                points, mass, codes = self._distinct(every)
            if len(points) <= clusters:
                return points, codes
        vectors = self._start(points, mass, clusters, int(rng.integers(1 << 31)))
        codes = self._nearest(vectors)
        for _ in range(min(WORK // (len(every) * clusters), ROUNDS)):
            vectors, before = self._means(codes, vectors), codes
            codes = self._nearest(vectors)
            if np.count_nonzero(before != codes) <= SETTLED * len(codes):
                break
        return self._means(codes, vectors), codes

    def _distinct(self, rows: Codes) -> tuple[Floats, Floats, Codes]:
        """Of some runs those that differ, [a, d], what they cost, [a], and which each is, [r]."""
        runs = self._runs[rows].astype(np.float64)
        points, which = np.unique(runs, axis=0, return_inverse=True)
        which = which.reshape(-1)
        mass = np.bincount(which, self._masses(rows).mean(axis=1), len(points))
        return points, np.asarray(mass, np.float64), which

    def _start(self, points: Floats, mass: Floats, clusters: int, seed: int) -> Floats:
        """[K, d], vectors for points [a, d] of such masses [a]."""
        from sklearn.cluster import KMeans  # takes as long as all else that a command loads

        fit = KMeans(
            clusters,
            init="k-means++" if clusters <= SPREAD else "random",
            n_init=1,
            max_iter=ITERATIONS,
            random_state=seed,
        )
        with threadpool_limits(1):  # sums over threads are not in the same order every time
            fit.fit(self._units(points), sample_weight=mass)
        return np.asarray(fit.cluster_centers_ * self._unit + self._middle)

    def _nearest(self, vectors: Floats) -> Codes:
        """[m], the vector that costs each run the least, by Σ_j h_j (c_j² - 2 w_j c_j)."""
        units = self._units(vectors)
        terms = np.concatenate((units * units, units), axis=1).T.astype(np.float32)
        codes = np.empty(len(self._runs), np.intp)
        step = max(1, AT_ONCE // len(vectors))
        for start in range(0, len(codes), step):
            some = slice(start, start + step)
            mass, runs = self._masses(some), self._units(self._runs[some])
            costs = np.concatenate((mass, -2 * mass * runs), axis=1).astype(np.float32)
            codes[some] = (costs @ terms).argmin(axis=1)
        return codes

    def _means(self, codes: Codes, vectors: Floats) -> Floats:
        """[K, d], the weighted means; as they were where no weight has importance."""
        means = vectors.copy()
        for place in range(vectors.shape[1]):
            mass = self._mass[:, place].astype(np.float64) / self._heaviest
            moment = mass * self._runs[:, place].astype(np.float64)
            moments, masses = (np.bincount(codes, a, len(vectors)) for a in (moment, mass))
            np.divide(moments, masses, out=means[:, place], where=masses > 0)
        return means

    def _units(self, runs: Array) -> Floats:
        """The same in other units, [r, d]."""
        return np.asarray((runs.astype(np.float64) - self._middle) / self._unit)

    def _masses(self, rows: Codes | slice) -> Floats:
        """[r, d], what errors in some runs cost, a little at least."""
        return np.asarray(self._mass[rows].astype(np.float64) / self._heaviest + self._least)
