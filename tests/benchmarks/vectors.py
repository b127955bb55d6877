"""Vector codebooks beside codebooks of single weights and entropy-coded grids, at equal bits.

    python tests/benchmarks/vectors.py [FOLDER ...]

Each FOLDER holds model.onnx, calib.npz and eval.npz; mnist_mlp of models/ is run in any case, and
one layer of 1000 × 1000 Gaussian weights, see synthetic.py, with all weights alike and with
lognormal importance. Each rate in bits a weight is asked for in four ways: K vectors of d weights,
log₂(K) / d bits; so many levels; a grid of so many bits; the same with a trellis.

Networks: whole files, and KL on eval.npz, which nothing was fitted to; importance comes from 512
calibration samples. "Weights of vectors" is the share of weights whose codes stand for several: in
small layers the table would cost more than it gains. The layer: bits of the whole file, Shannon's
bound at the error reached, and the gap between. Seconds are those of the whole call, on one
processor and whatever else the machine does. Writes vectors.json beside this file.

What was found: of the Gaussian layer vectors are nearer to the bound than levels at every rate, and
nearer than grids at one bit and, with lognormal importance, at all; a trellis is nearer still. On
the networks they do less damage than levels of the same nominal bits, but not for the same bytes:
codes of levels have less entropy. Grids, whose bits go where they are worth most, win there.
"""

import argparse
import json
import math
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy
import onnxruntime
import sklearn
from quantize import own, sets
from synthetic import decoded, draws, least_bits, network

import onnxrd
from onnxrd.graph.session import Runtime
from onnxrd.importance import identity

RATES = {1: (8, 256), 2: (4, 256), 3: (2, 64), 4: (2, 256)}
"""Bits a weight → weights a code, vectors."""

OPTIONS = onnxrd.Options(runtime=Runtime(threads=1), force=True)


def ways(rate):
    """Name → settings of `quantize`."""
    dimensions, clusters = RATES[rate]
    return {
        f"{clusters} vectors of {dimensions}": dict(vector=dimensions, clusters=clusters),
        f"{2**rate} levels": dict(clusters=2**rate),
        "grid": dict(bits=rate),
        "trellis": dict(bits=rate, trellis=True),
    }


def timed(model, output, given, settings):
    start = time.perf_counter()
    result = onnxrd.quantize(model, output, importance=given, options=OPTIONS, **settings)
    return result, round(time.perf_counter() - start, 2)


def measured(paths, scratch):
    """Rows of one network."""
    model_path, calib, evaluation = paths
    model = onnxrd.load_model(model_path)
    data = onnxrd.load_data(evaluation, model.inputs)
    given = onnxrd.fisher(
        model, onnxrd.load_data(calib, model.inputs, samples=512), runtime=OPTIONS.runtime
    )
    rows = []
    for rate in RATES:
        for name, settings in ways(rate).items():
            result, seconds = timed(model_path, scratch / "small.onnx", given, settings)
            found = onnxrd.evaluate(
                model,
                onnxrd.load_model(result.path),
                data,
                timed=False,
                runtime=OPTIONS.runtime,
            )
            sizes = [math.prod(layer.shape) for layer in result.layers]
            vectors = [n for n, layer in zip(sizes, result.layers) if layer.together > 1]
            rows.append(
                {
                    "bits asked for": rate,
                    "way": name,
                    "bytes": found.nbytes[1],
                    "bits a weight, whole file": round(found.bits_per_weight, 3),
                    "KL": round(found.distortion, 5),
                    "predicted KL": round(result.predicted, 5),
                    "seconds": seconds,
                }
            )
            if "vector" in settings:
                rows[-1]["weights of vectors"] = round(sum(vectors) / sum(sizes), 3)
            print(json.dumps(rows[-1]), flush=True)
    return rows


def gaussian(scratch):
    """Rows of a layer."""
    weight, lognormal = draws("gaussian")
    network(weight, scratch / "model.onnx")
    model = onnxrd.load_model(scratch / "model.onnx")
    rows = []
    for kind, h in (("alike", numpy.ones_like(weight)), ("lognormal", lognormal)):
        given = replace(identity(model), values={"w": h}, objective="fisher", damping=0.0)
        for rate in RATES:
            for name, settings in ways(rate).items():
                result, seconds = timed(model.path, scratch / "small.onnx", given, settings)
                error = (h * (weight - decoded(result.path)[0]).astype(float) ** 2).sum() / 2
                bits = 8 * result.path.stat().st_size / weight.size
                bound = least_bits("gaussian", weight, h, float(error))
                rows.append(
                    {
                        "importance": kind,
                        "bits asked for": rate,
                        "way": name,
                        "bits": round(bits, 4),
                        "bound": round(bound, 4),
                        "gap": round(bits - bound, 4),
                        "seconds": seconds,
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    folders = parser.parse_args().folders
    names = " ".join(folder.name for folder in folders)
    versions = {m.__name__: m.__version__ for m in (numpy, onnxruntime, sklearn)}
    report = {
        "command": f"python tests/benchmarks/vectors.py {names}".strip(),
        "versions": {"python": platform.python_version()} | versions,
    }
    with tempfile.TemporaryDirectory() as name:
        report["gaussian layer"] = gaussian(Path(name))
        networks = {folder.name: sets(folder) for folder in folders}
        for title, paths in ({"mnist_mlp": own("mnist_mlp")} | networks).items():
            report[title] = measured(paths, Path(name))
            Path(__file__).with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
