"""Bytes against damage of what `onnxrd compress` writes, beside NNCodec.

    python tests/benchmarks/compress.py FOLDER ... [--models] [--samples 1024] [--only NAME]

A folder holds model.onnx, calib.npz and eval.npz. Each network is compressed at a few rates; every
file is written, verified, packed and run on eval.npz, which nothing is fitted to and no setting is
chosen on. Bytes at a given damage are those of the line that fits the nearest files. NNCodec's are
those of nncodec.json (reference_nncodec.py). Writes compress.json beside this one.
"""

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

import onnxrd
from onnxrd.allocation.ladder import slope_for_bits
from onnxrd.evaluation import evaluate
from onnxrd.graph.session import Runtime
from onnxrd.pipeline.compressor import prepared_compressor

HERE = Path(__file__).parent
MODELS = HERE.parents[1] / "models"
TARGETS = {"regression": (0.01,), "classification": (0.01, 0.02, 0.1)}


def arrays(path, model, most):
    """The arrays that the model takes, and the labels."""
    names = {spec.name for spec in model.inputs} | {"labels"}
    with np.load(path) as archive:
        return {name: archive[name][:most] for name in archive.files if name in names}


def between(points, value, key):
    """Bytes at a damage, on the line in logarithms that fits the nearest four points best.

    Damage jumps from one rounding of a network to the next; a line through two points would take
    over the luck of these. None where the damage is not enclosed.
    """
    found = np.log([[p["damage"], p[key]] for p in points])
    if not found[:, 0].min() <= np.log(value) <= found[:, 0].max():
        return None
    nearest = found[np.argsort(np.abs(found[:, 0] - np.log(value)))[:4]]
    return round(float(np.exp(np.polyval(np.polyfit(*nearest.T, 1), np.log(value)))))


def compared(name, points, regression):
    """Bytes at equal damage, ours and NNCodec's."""
    reference = json.loads((HERE / "nncodec.json").read_text())["networks"].get(name, {})
    return {
        str(value): {
            "plain": between(points, value, "nbytes"),
            "packed": between(points, value, "packed"),
            "nncodec": reference.get("at", {}).get(str(value), {}).get("best"),
        }
        for value in TARGETS["regression" if regression else "classification"]
    }


def network(name, model, calib, held_out, bits, samples, threads):
    original = onnxrd.load_model(model)
    data = arrays(calib, original, samples)
    start = time.process_time(), time.perf_counter()
    compressor = prepared_compressor(
        original, data, None, onnxrd.Options(samples=None, runtime=Runtime(threads=threads))
    )
    evaluation = onnxrd.load_data(arrays(held_out, original, None), original.inputs)
    ladders = list(compressor.ladders.values())
    points = []
    with tempfile.TemporaryDirectory() as folder:
        for rate in bits:
            path = Path(folder) / f"{rate}.onnx"
            point = compressor.point(slope_for_bits(ladders, rate))
            compressor.write(point, path, path)
            packed = onnxrd.pack(path, path.with_suffix(".onnxrd"))
            found = evaluate(original, onnxrd.load_model(path), evaluation, timed=False)
            (head, *_) = found.heads
            regression = head.task == "regression"
            points.append(
                {
                    "nbytes": path.stat().st_size,
                    "packed": path.with_suffix(".onnxrd").stat().st_size,
                    "damage": head.relative_error if regression else found.distortion,
                    "standard error": head.distortion.standard_error,
                    "held-out damage": point.damage.relative
                    if regression
                    else point.damage.distortion,
                    "accuracy": head.accuracy,
                }
            )
            print(name, rate, points[-1], packed is not None, flush=True)
    return {
        "original": original.nbytes,
        "samples": len(next(iter(data.values()))),
        "evaluated on": evaluation.samples,
        "method": str(compressor.method),
        "points": points,
        "regression": regression,
        "at": compared(name, points, regression),
        "threads": threads,
        "processor seconds": round(time.process_time() - start[0], 1),
        "seconds": round(time.perf_counter() - start[1], 1),
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--bits", default="1.2,1.5,2,2.5,3,3.5")
    given = parser.parse_args()
    jobs = {f.name: [f / n for n in ("model.onnx", "calib.npz", "eval.npz")] for f in given.folders}
    if given.models:
        for name in ("mnist_mlp", "cifar10_cnn"):
            jobs[name] = [MODELS / f"{name}{end}" for end in (".onnx", "_calib.npz", "_eval.npz")]
    output = HERE / "compress.json"
    document = json.loads(output.read_text()) if output.exists() else {"networks": {}}
    document["command"] = "python tests/benchmarks/compress.py FOLDER ... --models"
    document["versions"] = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    bits = [float(b) for b in given.bits.split(",")]
    for name, files in jobs.items():
        document["networks"][name] = network(name, *files, bits, given.samples, given.threads)
        output.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
