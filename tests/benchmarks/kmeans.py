"""Weighted k-means of a million weights: onnxrd against scikit-learn, side by side in one process.

    python tests/benchmarks/kmeans.py

Weights are float32, Gaussian or Laplacian, importance is lognormal (σ = 1). scikit-learn runs
KMeans(k, n_init=1, random_state=0) with sample_weight, on all processors and on one; onnxrd uses
one. Times are the median of three runs, of seven for onnxrd. Distortion is ½ Σ h (w - ŵ)² over all
weights, reckoned by the same function for both.

The reference for "above the optimum" is exact dynamic programming over 32768 bins, 64 or 16 times
as many as `weighted_kmeans` itself uses, then refined down to single weights. Cuts at the edges of
these bins can only lose to free ones, and "reference refinement" says by how much refining lowered
it: twice the bins quarter that number, so the true optimum is lower by no more than about that.

Peak memory is what tracemalloc sees, in a run of its own: numpy's arrays, in either library.
Writes kmeans.json beside this file.
"""

import json
import os
import platform
import statistics
import time
import tracemalloc
from pathlib import Path

import numpy as np
import sklearn
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from onnxrd.quantizers import rule1_residual, weighted_distortion, weighted_kmeans
from onnxrd.quantizers.kmeans import merged_points
from onnxrd.quantizers.partition import exact_cuts, refined_cuts

N = 1_000_000
CLUSTERS = (16, 256)
DENSITIES = ("gaussian", "laplacian")
REFERENCE_BINS = 32768


def data(density, n=N):
    seed = np.random.default_rng(20190610)
    weight = seed.standard_normal(n) if density == "gaussian" else seed.laplace(size=n)
    return weight.astype(np.float32), seed.lognormal(size=n).astype(np.float32)


def ours(weight, importance, clusters):
    return weighted_kmeans(weight, importance, clusters).dequantize()


def theirs(weight, importance, clusters):
    fit = KMeans(clusters, n_init=1, random_state=0)
    fit.fit(weight[:, None], sample_weight=importance)
    return fit.cluster_centers_[fit.labels_, 0]


METHODS = {"onnxrd": ours, "scikit-learn": theirs}


def timed(method, arguments, times):
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        approximation = method(*arguments)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), approximation


def reference(weight, importance, clusters):
    """The distortion of the best cuts known, and by how much refinement lowered it, relatively."""
    order = np.argsort(weight)
    value, mass = weight[order].astype(np.float64), importance[order].astype(np.float64)
    points = merged_points(value - value[N // 2], mass, False)
    coarse, _ = exact_cuts(points, clusters, REFERENCE_BINS)
    distortions = []
    for cuts in (coarse, refined_cuts(points, coarse, None)):
        means = np.diff(points.moment[cuts]) / np.diff(points.mass[cuts]) + value[N // 2]
        edges = np.searchsorted(value, (means[1:] + means[:-1]) / 2)
        counts = np.diff(edges, prepend=0, append=N)
        distortions.append(weighted_distortion(value, np.repeat(means, counts), mass))
    return distortions[1], distortions[0] / distortions[1] - 1


def peak_memory(method, arguments):
    tracemalloc.start()
    method(*arguments)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(peak / 2**20, 1)


def compare(density, clusters):
    weight, importance = data(density)
    optimum, refinement = reference(weight, importance, clusters)
    row = {"density": density, "weights": N, "clusters": clusters}
    arguments = weight, importance, clusters
    for name, method in METHODS.items():
        seconds, approximation = timed(method, arguments, 7 if method is ours else 3)
        reached = weighted_distortion(weight, approximation, importance)
        row[name] = {
            "seconds": round(seconds, 4),
            "percent above the optimum": round(100 * (reached / optimum - 1), 5),
            "rule 1 residual": rule1_residual(weight, approximation, importance),
            "peak memory, MiB": peak_memory(method, arguments),
        }
    with threadpool_limits(1):
        single = timed(theirs, arguments, 1)[0]
    ours_seconds, theirs_seconds = (row[name]["seconds"] for name in METHODS)
    row["scikit-learn"]["seconds on one processor"] = round(single, 4)
    row["time ratio"] = round(theirs_seconds / ours_seconds, 1)
    row["time ratio, one processor each"] = round(single / ours_seconds, 1)
    row["reference refinement, percent"] = round(100 * refinement, 5)
    return row


def small():
    """Median milliseconds for a tensor of 400 weights and 16 clusters."""
    weight, importance = data("gaussian", 400)
    return {
        name: round(1000 * timed(method, (weight, importance, 16), 50)[0], 2)
        for name, method in METHODS.items()
    }


def main():
    rows = [compare(density, clusters) for density in DENSITIES for clusters in CLUSTERS]
    result = {
        "command": "python tests/benchmarks/kmeans.py",
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "processors": os.cpu_count(),
        "rows": rows,
        "400 weights, 16 clusters, milliseconds": small(),
    }
    text = json.dumps(result, indent=2)
    Path(__file__).with_suffix(".json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
