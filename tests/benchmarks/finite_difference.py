"""The finite-difference estimator against autodiff: entry by entry, and sums over channels.

    python tests/benchmarks/finite_difference.py MODEL CALIB

Both see the same samples, with the exact sum over classes. Entry by entry, on 32 samples: the
relative difference over all entries of the smallest convolution and of the last layer. By channel,
on 8: the mean of 16 independent estimates of every channel's sum in three layers, of 16 random
directions each, and its distance from autodiff's sum in units of its own standard error; their root
mean square should be about 1, and two thirds of them below 1. Writes finite_difference.json.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import onnxruntime

import onnxrd
from onnxrd.graph.session import Runtime
from onnxrd.importance.finite_difference import finite_difference

SAMPLES, FEWER, ESTIMATES, DIRECTIONS = 32, 8, 16, 16
ONE = Runtime(threads=1)


def by_entry(model, data, h, weight):
    start = time.perf_counter()
    estimator = onnxrd.Estimator("exact")
    settings = {"names": [weight.name], "exact_up_to": weight.size, "runtime": ONE}
    found = finite_difference(model, data, estimator=estimator, **settings).values[weight.name]
    exact = h.values[weight.name].astype(np.float64)
    known = exact > 0
    apart = np.abs(found - exact)[known] / exact[known]
    return {
        "weight": weight.name,
        "entries": weight.size,
        "median relative difference": float(np.median(apart)),
        "90 % of entries within": float(np.quantile(apart, 0.9)),
        "ratio of sums": float(found.sum() / exact.sum()),
        "seconds": round(time.perf_counter() - start, 1),
    }


def by_channel(model, data, h, weight):
    sums = []
    for seed in range(ESTIMATES):
        estimator = onnxrd.Estimator("exact", seed=seed)
        settings = {"names": [weight.name], "exact_up_to": 0, "directions": DIRECTIONS}
        once = finite_difference(model, data, estimator=estimator, runtime=ONE, **settings)
        rows = np.moveaxis(once.values[weight.name], weight.channel_axis, 0)
        sums.append(rows.reshape(len(rows), -1).sum(axis=1, dtype=np.float64))
    rows = np.moveaxis(h.values[weight.name], weight.channel_axis, 0)
    exact = rows.reshape(len(rows), -1).sum(axis=1, dtype=np.float64)
    alive = exact > 0
    error = np.std(sums, axis=0, ddof=1)[alive] / np.sqrt(ESTIMATES)
    z = (np.mean(sums, axis=0)[alive] - exact[alive]) / error
    return {
        "weight": weight.name,
        "channels": int(alive.sum()),
        "relative standard error, median": float(np.median(error / exact[alive])),
        "distance in standard errors, rms": float(np.sqrt(np.mean(z**2))),
        "share within one": float(np.mean(np.abs(z) <= 1)),
        "ratio of the tensor's sums": float(np.mean(sums, axis=0).sum() / exact.sum()),
        "standard error of that": float(np.sqrt((error**2).sum()) / exact.sum()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    paths = parser.parse_args()
    model = onnxrd.load_model(paths.model)
    data = onnxrd.load_data(paths.data, model.inputs, samples=SAMPLES)
    h = onnxrd.fisher(model, data, estimator=onnxrd.Estimator("exact"), runtime=ONE)
    weights = [w for w in onnxrd.find_weights(model) if not w.skip]
    smallest = min((w for w in weights if w.role == "convolution"), key=lambda w: w.size)
    middle = len(weights) // 2
    few = data.spread(FEWER)
    h_few = onnxrd.fisher(model, few, estimator=onnxrd.Estimator("exact"), runtime=ONE)
    entries, channels = [], []
    for weight in (smallest, weights[-1]):
        entries.append(by_entry(model, data, h, weight))
        print(json.dumps(entries[-1]), flush=True)
    for weight in (weights[1], weights[middle], weights[-1]):
        channels.append(by_channel(model, few, h_few, weight))
        print(json.dumps(channels[-1]), flush=True)
    labels = [f"{p.parent.name}/{p.name}" for p in (paths.model, paths.data)]
    report = {
        "command": " ".join(["python tests/benchmarks/finite_difference.py", *labels]),
        "versions": {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__},
        "entry by entry": entries,
        "by channel": channels,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
