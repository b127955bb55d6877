"""Codebook quantization with Fisher and with identity importance, at several numbers of clusters.

    python tests/benchmarks/quantize.py FOLDER [FOLDER ...]

Each FOLDER holds model.onnx, calib.npz and eval.npz; with --models, the networks of models/ are run
too. Importance comes from 512 calibration samples, nothing is tuned on the evaluation data. Every
file is written, verified and then measured as it lies on disk. Writes quantize.json beside this
one.
"""

import argparse
import json
import platform
import tempfile
from pathlib import Path

import numpy
import onnxruntime

import onnxrd

MODELS = Path(__file__).resolve().parents[2] / "models"
CLUSTERS = (8, 16, 32, 64)


def sets(folder):
    return folder / "model.onnx", folder / "calib.npz", folder / "eval.npz"


def own(name):
    return tuple(MODELS / f"{name}{end}" for end in (".onnx", "_calib.npz", "_eval.npz"))


def sweep(model_path, calib, evaluation, scratch):
    model = onnxrd.load_model(model_path)
    data = onnxrd.load_data(evaluation, model.inputs)
    fisher = onnxrd.fisher(model, onnxrd.load_data(calib, model.inputs, samples=512))
    rows = []
    for clusters in CLUSTERS:
        row = {"clusters": clusters}
        for objective in ("fisher", "identity"):
            options = onnxrd.Options(objective=objective)
            output = scratch / f"{objective}-{clusters}.onnx"
            importance = fisher if objective == "fisher" else None
            result = onnxrd.quantize(
                model_path, output, clusters=clusters, importance=importance, options=options
            )
            measured = onnxrd.evaluate(model, onnxrd.load_model(output), data, timed=False)
            (head,) = measured.heads
            row[objective] = {
                "KL": round(head.distortion.mean, 5),
                "standard error": round(head.distortion.standard_error, 5),
                "accuracy": round(head.accuracy[1], 4),
                "predicted KL": result.predicted,
                "bits per weight, whole file": round(measured.bits_per_weight, 4),
                "bytes": measured.nbytes[1],
                "ratio": round(measured.ratio, 3),
            }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return {
        "samples": measured.samples,
        "original bytes": measured.nbytes[0],
        "original accuracy": round(head.accuracy[0], 4),
        "rows": rows,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--models", action="store_true", help="the networks of models/ too")
    options = parser.parse_args()
    networks = {folder.name: sets(folder) for folder in options.folders}
    if options.models:
        networks |= {name: own(name) for name in ("mnist_mlp", "cifar10_cnn")}
    command = ["python tests/benchmarks/quantize.py", *("--models" for _ in [0] if options.models)]
    report = {
        "command": " ".join([*command, *(folder.name for folder in options.folders)]),
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "networks": {},
    }
    for name, paths in networks.items():
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            report["networks"][name] = sweep(*paths, Path(scratch))
        Path(__file__).with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
