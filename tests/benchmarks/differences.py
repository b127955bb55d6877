"""Exact Fisher importance of whole networks against central differences through onnxruntime.

    python tests/benchmarks/differences.py MODEL CALIB [MODEL CALIB ...]

Coordinates of every weight are drawn, in proportion to their importance, and moved by some shares
of the tensor's standard deviation, in float32. The relative difference of importances is taken at
the best of these steps, one for each tensor: a large one crosses the kinks of ReLU, a small one
drowns in rounding. Writes differences.json beside this file.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
SAMPLES, COORDINATES, STEPS = 16, 6, (0.003, 0.01, 0.03)


def differences(path, data, rng):
    """Relative differences [weights, COORDINATES]."""
    import onnxrd
    from onnxrd.graph.session import Runtime
    from tests import networks
    from tests.importance.brute_force import Compared, importance

    model = onnxrd.load_model(path)
    calibration = onnxrd.load_data(data, model.inputs, samples=SAMPLES)
    exact = onnxrd.Estimator("exact")
    h = onnxrd.fisher(model, calibration, estimator=exact, runtime=Runtime(threads=1))
    (batch,) = calibration.batches(SAMPLES)
    heads = [Compared(model.outputs[0])]
    rows = []
    for name, values in h.values.items():
        share = values.ravel() / values.sum(dtype=np.float64)
        flats = rng.choice(values.size, COORDINATES, p=share / share.sum())
        scale = float(networks.arrays(path)[name].std())
        found = [
            importance(path, name, batch.feeds, flats, heads=heads, step=step * scale)
            for step in STEPS
        ]
        measured = values.reshape(-1)[flats]
        rows.append(min((np.abs(f / measured - 1) for f in found), key=np.median))
    return np.array(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="+", type=Path, metavar="MODEL CALIB")
    pairs = parser.parse_args().pairs
    import onnxruntime

    networks = {}
    for path, data in zip(pairs[::2], pairs[1::2]):
        name = path.stem if path.stem != "model" else path.parent.name
        rows = differences(path, data, np.random.default_rng(0))
        networks[name] = {
            "weights": len(rows),
            "coordinates": rows.size,
            "median relative difference": float(np.median(rows)),
            "the worst weight's median": float(np.median(rows, axis=1).max()),
            "largest": float(rows.max()),
        }
        print(name, json.dumps(networks[name], indent=2), flush=True)
    labels = [f"{p.parent.name}/{p.name}" for p in pairs]
    report = {
        "command": " ".join(["python tests/benchmarks/differences.py", *labels]),
        "versions": {
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
        },
        "networks": networks,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
