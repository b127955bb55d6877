"""Weighted k-means of a million weights: onnxrd against scikit-learn, side by side in one process.

    python tests/benchmarks/kmeans.py

Weights are float32, Gaussian or Laplacian, importance is lognormal (σ = 1). scikit-learn runs
KMeans(k, n_init=1, random_state=0) with sample_weight, on all processors and on one; onnxrd uses
one. They take turns, and the shortest time of each counts. Distortion is ½ Σ h (w - ŵ)² over all
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
ROUNDS = 3


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


def theirs_on_one(weight, importance, clusters):
    with threadpool_limits(1):
        return theirs(weight, importance, clusters)


METHODS = {"onnxrd": ours, "scikit-learn": theirs, "scikit-learn, one processor": theirs_on_one}


def seconds(method, arguments, times):
    shortest = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        method(*arguments)
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


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
    arguments = weight, importance, clusters
    optimum, refinement = reference(*arguments)
    row = {"density": density, "weights": N, "clusters": clusters}
    times = {name: [] for name in METHODS}
    for _ in range(ROUNDS):
        for name, method in METHODS.items():
            times[name].append(seconds(method, arguments, 3 if method is ours else 1))
    for name in ("onnxrd", "scikit-learn"):
        approximation = METHODS[name](*arguments)
        reached = weighted_distortion(weight, approximation, importance)
        row[name] = {
            "percent above the optimum": round(100 * (reached / optimum - 1), 5),
            "rule 1 residual": rule1_residual(weight, approximation, importance),
            "peak memory, MiB": peak_memory(METHODS[name], arguments),
        }
    row["seconds"] = {name: round(min(times[name]), 4) for name in METHODS}
    row["time ratio"] = {
        name: round(min(times[name]) / min(times["onnxrd"]), 1) for name in METHODS
    }
    row["reference refinement, percent"] = round(100 * refinement, 5)
    return row


def small():
    """Milliseconds for a tensor of 400 weights and 16 clusters."""
    arguments = *data("gaussian", 400), 16
    return {
        name: round(1000 * seconds(method, arguments, 100), 2) for name, method in METHODS.items()
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
