"""Are promises kept? Sizes and damages asked for at random, and what came out.

    python tests/benchmarks/targets.py [FOLDER ...] [--models] [--sizes 20] [--damages 5]

On networks of folders with model.onnx, calib.npz and eval.npz, and the two of models/. Every file
is written and verified; its size is that on disk. Damage is asked for on the held-out part of the
calibration data, and measured on the evaluation data, too, which nothing has seen. Writes
targets.json beside this file.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

import onnxrd
from onnxrd.evaluation import evaluate
from onnxrd.graph.session import Runtime
from onnxrd.pipeline.compress import to_target
from onnxrd.pipeline.compressor import prepared_compressor

HERE = Path(__file__).parent
MODELS = HERE.parents[1] / "models"
SMALLEST, LARGEST = 1.2, 5.0
"""Bits a weight, of the whole file."""


def arrays(path, model):
    names = {spec.name for spec in model.inputs} | {"labels"}
    with np.load(path) as archive:
        return {name: archive[name][:1024] for name in archive.files if name in names}


def network(files, sizes, damages, rng):
    model, calib, held_out = files
    original = onnxrd.load_model(model)
    start = time.process_time()
    compressor = prepared_compressor(
        original, arrays(calib, original), None, onnxrd.Options(runtime=Runtime(threads=1))
    )
    evaluation = onnxrd.load_data(arrays(held_out, original), original.inputs)
    weights = int(sum(weight.size for weight in compressor.weights))
    rows: dict[str, list] = {"sizes": [], "damages": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"

        def ask(kind, value):
            compressor.write(to_target(compressor, onnxrd.Target(kind, value)), path, path)
            return path.stat().st_size

        for bits in np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST), sizes)):
            limit = int(bits * weights / 8)
            found = ask("size", limit)
            rows["sizes"].append({"limit": limit, "bytes": found, "share": found / limit})
        for limit in np.exp(rng.uniform(np.log(0.002), np.log(0.2), damages)).tolist():
            point = to_target(compressor, onnxrd.Target("kl", limit))
            compressor.write(point, path, path)
            unseen = evaluate(original, onnxrd.load_model(path), evaluation, timed=False)
            rows["damages"].append(
                {
                    "limit": limit,
                    "held out": point.damage.distortion,
                    "evaluation": unseen.distortion,
                    "bytes": path.stat().st_size,
                }
            )
    shares = [row["share"] for row in rows["sizes"]]
    return {
        **rows,
        "sizes kept": sum(share <= 1 for share in shares),
        "sizes within 2 %": sum(0.98 <= share <= 1 for share in shares),
        "damages kept": sum(bool(row["held out"] <= row["limit"]) for row in rows["damages"]),
        "processor seconds": round(time.process_time() - start, 1),
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--sizes", type=int, default=20)
    parser.add_argument("--damages", type=int, default=5)
    given = parser.parse_args()
    ends = (".onnx", "_calib.npz", "_eval.npz")
    own = ("mnist_mlp", "cifar10_cnn") if given.models else ()
    jobs = {n: [MODELS / f"{n}{end}" for end in ends] for n in own}
    for folder in given.folders:
        jobs[folder.name] = [folder / n for n in ("model.onnx", "calib.npz", "eval.npz")]
    document = {"command": "python tests/benchmarks/targets.py FOLDER ... --models", "networks": {}}
    for name, files in jobs.items():
        rng = np.random.default_rng(0)
        document["networks"][name] = found = network(files, given.sizes, given.damages, rng)
        print(name, {k: v for k, v in found.items() if k not in ("sizes", "damages")}, flush=True)
        (HERE / "targets.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
