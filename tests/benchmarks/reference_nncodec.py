"""NNCodec, the MPEG standard codec for networks: its bytes at a given distortion, to compare with.

    pip install --no-deps nncodec==2.1.3 && pip install pybind11     (it is built on installation)
    python tests/benchmarks/reference_nncodec.py FOLDER [FOLDER ...] [--models]

Each FOLDER holds model.onnx and eval.npz; with --models, the networks of models/ are run too.
Every weight and bias goes into the bitstream by name, the rest of the graph is compressed by zlib;
both count. The quantization parameter `qp` is swept with one step for
all tensors (uniform) and with NNCodec's own rule for a step for each (opt_qp), until the distortion
on all of eval.npz spans the targets; between two neighbours the bytes are interpolated linearly in
the logarithm of the distortion. Of the two sweeps the smaller counts. Writes nncodec.json.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import sys
import tempfile
import types
import zlib
from itertools import pairwise
from math import inf, log
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

import onnxrd
from onnxrd.distortion import distortion, find_heads
from onnxrd.evaluation import count_parameters
from onnxrd.graph.model import save
from onnxrd.graph.session import Runtime, Session
from onnxrd.graph.weights import COMPRESSIBLE

HERE = Path(__file__).resolve().parent
CODED = COMPRESSIBLE | {"bias"}
"""NNCodec's one fine step for all others destroys normalisation parameters of the ocr network."""
KL = (0.003, 0.01, 0.02, 0.03, 0.1)
RELATIVE_ERROR = (0.003, 0.01, 0.03)
BATCH = 32
FINEST, START, COARSEST, STRIDE = -48, -28, 0, 2
"""Of qp: four make a factor of two in the step, about one bit a weight."""


def installed():
    """Whether NNCodec can be used here."""
    return importlib.util.find_spec("nncodec") is not None


def codec():
    """NNCodec's functions on arrays, without the training framework that it imports along."""
    if not installed():
        raise SystemExit("NNCodec is not installed: pip install --no-deps nncodec==2.1.3")
    framework = types.ModuleType("nncodec.framework")
    for name in ("tensorflow_model", "pytorch_model", "use_case_init"):
        setattr(framework, name, types.ModuleType(name))
    sys.modules.setdefault("nncodec.framework", framework)
    from nncodec import nnc

    return nnc


def parameters(model):
    """{name: array} as NNCodec wants them: what is no weight has one axis."""
    chosen = {}
    for weight in onnxrd.find_weights(model):
        if weight.role in CODED and weight.dtype == np.float32 and weight.size > 1:
            array = np.ascontiguousarray(weight.array())
            chosen[weight.name] = array if weight.role in COMPRESSIBLE else array.reshape(-1)
    return chosen


def graph_bytes(model, names):
    """Bytes of the zlib-compressed model without the values of these parameters."""
    proto = ir.to_proto(ir.external_data.load_to_model(model.prepared()))
    for tensor in proto.graph.initializer:
        if tensor.name in names:
            tensor.ClearField("raw_data")
    return len(zlib.compress(proto.SerializeToString(), 9))


class Yardstick:
    """Measures other weights of one network on one set of samples, the original run only once.

    Args:
        model: an onnxrd.Model with one output.
        data: an onnxrd.Calibration.
        scratch: a folder.
    """

    def __init__(self, model, data, scratch):
        (self.head,) = find_heads(model.prepared(), sample_axis=data.sample_axis)
        self.model, self.data, self.path = model, data, scratch / "decoded.onnx"
        self.regression = self.head.task == "regression"
        self.outputs = list(self._run(model.path))
        self.energy = sum(
            distortion(self.head, rows, np.zeros_like(rows)).sum() if self.regression else len(rows)
            for rows in self.outputs
        )

    def __call__(self, decoded):
        """KL divergence in nats, or relative squared error: the same as `onnxrd.evaluate` says."""
        graph = self.model.prepared()
        for name, values in decoded.items():
            value = graph.graph.initializers[name]
            shape = tuple(value.const_value.shape.numpy())
            value.const_value = ir.tensor(values.reshape(shape), name=name)
        save(graph, self.path)
        pairs = zip(self.outputs, self._run(self.path))
        return sum(distortion(self.head, *pair).sum() for pair in pairs) / self.energy

    def _run(self, path):
        session = Session(path, runtime=Runtime(threads=1))
        for batch in self.data.batches(BATCH):
            yield session.run(batch.feeds)[self.head.output][: batch.size]


def sweep(model, yardstick, *, opt_qp, targets, start=START):
    """[{qp, bitstream, bytes, distortion}], from fine to coarse, spanning the targets."""
    nnc, given = codec(), parameters(model)
    rest = graph_bytes(model, given)
    points = {}

    def point(qp):
        bits = nnc.compress(
            dict(given), None, qp=qp, opt_qp=opt_qp, row_skipping=True, return_bitstream=True
        )
        error = float(yardstick(nnc.decompress(bits)))
        points[qp] = dict(qp=qp, bitstream=len(bits), bytes=len(bits) + rest, distortion=error)
        print(json.dumps({"opt_qp": opt_qp, **points[qp]}), flush=True)
        return error

    error, qp = point(start), start
    while error > min(targets) and qp > FINEST:
        qp -= STRIDE
        error = point(qp)
    error, qp = points[start]["distortion"], start
    while error < max(targets) and qp < COARSEST:
        qp += STRIDE
        error = point(qp)
    return [points[qp] for qp in sorted(points)]


def bytes_at(points, target):
    """Fewest bytes at a distortion between two neighbours of a sweep; None outside of it."""
    found = inf
    for fine, coarse in pairwise(points):
        if fine["distortion"] <= target <= coarse["distortion"]:
            span = log(coarse["distortion"] / fine["distortion"])
            share = log(target / fine["distortion"]) / span if span else 0.0
            found = min(found, fine["bytes"] + share * (coarse["bytes"] - fine["bytes"]))
    return round(found) if found < inf else None


def curve(model, data, targets=None):
    """NNCodec on one network: both sweeps, and the fewest bytes at each target.

    Args:
        model: an onnxrd.Model with one output.
        data: an onnxrd.Calibration to measure on.
        targets: KL divergences in nats, or relative squared errors; None for the usual ones.
    """
    with tempfile.TemporaryDirectory() as folder:
        yardstick = Yardstick(model, data, Path(folder))
        targets = targets or (RELATIVE_ERROR if yardstick.regression else KL)
        uniform = sweep(model, yardstick, opt_qp=False, targets=targets)
        start = uniform[len(uniform) // 2]["qp"]
        chosen = sweep(model, yardstick, opt_qp=True, targets=targets, start=start)
    sweeps = {"uniform": uniform, "opt_qp": chosen}
    given = parameters(model)
    weights = sum(array.size for array in given.values() if array.ndim > 1)
    return {
        "measure": "relative squared error" if yardstick.regression else "KL, nats",
        "samples": data.samples,
        "original bytes": model.nbytes,
        "parameters": count_parameters(model),
        "weights": weights,
        "graph bytes": graph_bytes(model, given),
        "at": {str(target): _best(sweeps, target, weights) for target in targets},
        "sweeps": sweeps,
    }


def _best(sweeps, target, weights):
    """The better of the two sweeps at a target."""
    each = {name: bytes_at(points, target) for name, points in sweeps.items()}
    known = [size for size in each.values() if size is not None]
    best = min(known) if known else None
    return {**each, "best": best, "bits per weight": best and round(8 * best / weights, 3)}


def networks(folders, models):
    """{name: (model, eval) paths}."""
    chosen = {folder.name: (folder / "model.onnx", folder / "eval.npz") for folder in folders}
    for name in ("mnist_mlp", "cifar10_cnn") if models else ():
        own = HERE.parents[1] / "models"
        chosen[name] = (own / f"{name}.onnx", own / f"{name}_eval.npz")
    return chosen


def evaluation_data(path, model):
    """The samples of a file, without arrays that are for other measures than distortion."""
    known = {spec.name for spec in model.inputs} | {"labels"}
    with np.load(path) as arrays:
        chosen = {name: arrays[name] for name in arrays.files if name in known}
    return onnxrd.load_data(chosen, model.inputs)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--models", action="store_true", help="the networks of models/ too")
    options = parser.parse_args()
    codec()
    output = HERE / "nncodec.json"
    for name, (path, data) in networks(options.folders, options.models).items():
        print(name, flush=True)
        model = onnxrd.load_model(path)
        found = curve(model, evaluation_data(data, model))
        before = json.loads(output.read_text())["networks"] if output.exists() else {}
        report = {
            "command": "python tests/benchmarks/reference_nncodec.py FOLDER ... --models",
            "versions": {
                "python": platform.python_version(),
                "nncodec": importlib.metadata.version("nncodec"),
                "numpy": np.__version__,
                "onnxruntime": onnxruntime.__version__,
            },
            "networks": before | {name: found},
        }
        output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
