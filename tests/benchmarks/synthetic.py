"""Bytes of a written network against Shannon's bound: a million Gaussian or Laplacian weights.

    python tests/benchmarks/synthetic.py

The network is one MatMul, 1000 × 1000, float32. `onnxrd quantize --bits B` compresses it to a plain
.onnx file, on a uniform grid and, with `--trellis`, on two; the file is verified at every
optimization level, as always. For each file:

- bits: bytes of the whole file, in bits a weight;
- bound: R(D) of the density at the error of the weights that stock onnxruntime decodes from the
  file, ½ log₂(σ²/D) for a Gaussian, by Blahut and Arimoto for a Laplacian;
- gap: bits less bound.

With importance, lognormal (σ = 1) and independent of the weights, errors are weighted with it and
the bound is that for a decoder that is told the importance for nothing, which ours is not.

Seconds are those of the whole call, verification and all, and of loading, in this process, on
whatever else the machine does. Writes synthetic.json beside this file.
"""

import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import onnxrd
from onnxrd.importance import identity
from onnxrd.rate_distortion import Source, bound, empirical_curve, gaussian_curve
from onnxrd.rate_distortion.histogram import histogram

SIDE = 1000
RATES = (1, 2, 3, 4)
DENSITIES = ("gaussian", "laplacian")


def draws(density):
    seed = np.random.default_rng(20191)
    shape = (SIDE, SIDE)
    weight = seed.standard_normal(shape) if density == "gaussian" else seed.laplace(size=shape)
    return weight.astype(np.float32), seed.lognormal(size=shape).astype(np.float32)


def network(weight, path):
    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIDE])

    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    initializer = numpy_helper.from_array(weight, "w")
    graph = helper.make_graph([node], "layer", [value("x")], [value("y")], [initializer])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def decoded(path):
    """The weight, by what the file's network does to the identity; and seconds to load it."""
    start = time.perf_counter()
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    seconds = time.perf_counter() - start
    return session.run(None, {"x": np.eye(SIDE, dtype=np.float32)})[0], seconds


def least_bits(density, weight, importance, error):
    """R(D) a weight, D being the error ½ Σ h (w - ŵ)² of all weights together."""
    curve = gaussian_curve(1.0) if density == "gaussian" else empirical_curve(weight)
    return bound([Source(curve, histogram(importance))], distortion=error).bits_per_weight


def row(folder, density, weight, importance, bits, trellis):
    model = onnxrd.load_model(folder / "model.onnx")
    given = identity(model)
    if importance is not None:
        given = replace(given, values={"w": importance}, objective="fisher", damping=0.0)
    start = time.perf_counter()
    result = onnxrd.quantize(
        model.path, folder / "small.onnx", bits=bits, trellis=trellis, importance=given
    )
    seconds = time.perf_counter() - start
    approximation, load_seconds = decoded(result.path)
    h = np.ones_like(weight) if importance is None else importance
    error = float((h * (weight - approximation).astype(np.float64) ** 2).sum()) / 2
    least = least_bits(density, weight, h, error)
    real = 8 * result.path.stat().st_size / weight.size
    return {
        "density": density,
        "importance": "alike" if importance is None else "lognormal",
        "asked for": bits,
        "trellis": trellis,
        "bits": round(real, 4),
        "bound": round(least, 4),
        "gap": round(real - least, 4),
        "seconds": round(seconds, 2),
        "seconds to load": round(load_seconds, 2),
    }


def main():
    rows = []
    for density in DENSITIES:
        weight, lognormal = draws(density)
        with tempfile.TemporaryDirectory() as name:
            network(weight, Path(name) / "model.onnx")
            for importance in (None, lognormal):
                for bits in RATES:
                    for trellis in (False, True):
                        arguments = density, weight, importance, bits, trellis
                        rows.append(row(Path(name), *arguments))
                        print(json.dumps(rows[-1]), flush=True)
    versions = {m.__name__: m.__version__ for m in (np, onnx, ort)}
    result = {
        "command": "python tests/benchmarks/synthetic.py",
        "versions": {"python": platform.python_version()} | versions,
        "weights": SIDE * SIDE,
        "rows": rows,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
