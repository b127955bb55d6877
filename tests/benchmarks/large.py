"""Peak memory on a transformer of 2.5 GB whose weights lie in several external files.

    python tests/benchmarks/large.py [--layers 12] [--width 2048]

The model is made up (random weights) in a temporary folder and removed afterwards. Each command
runs in a process of its own, watched from outside; so does a process that does nothing but open and
run, one after the other, the same onnxruntime sessions on the files that were written. What the
command takes beside onnxruntime is the difference. Resident memory counts what is mapped from files
too; `private` is without that. Writes large.json beside this one.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

import onnxrd
from onnxrd.graph.session import LEVELS, Session

VOCABULARY, CLASSES, HEADS, TOKENS = 8192, 1000, 16, 16
MB = 1e6


class Builder:
    """Collects nodes and weights; the weights go to disk at once, in three files."""

    def __init__(self, folder, layers):
        self.folder, self.layers, self.layer = folder, layers, 0
        self.nodes, self.weights, self.largest = [], [], 0
        self.rng = np.random.default_rng(0)

    def weight(self, name, shape, scale):
        array = self.rng.standard_normal(shape, np.float32)
        array *= np.float32(scale)
        location = f"part{3 * self.layer // (self.layers + 1)}.bin"
        with (self.folder / location).open("ab") as stream:
            offset = stream.tell()
            array.tofile(stream)
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self.weights.append(tensor)
        self.largest = max(self.largest, array.nbytes)
        return name

    def constant(self, name, value):
        self.weights.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op, inputs, **attributes):
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def linear(self, x, name, rows, columns):
        return self.node("MatMul", [x, self.weight(name, (rows, columns), rows**-0.5)])


def norm(b, x, name, width):
    scale = b.constant(f"{name}.scale", np.ones(width, np.float32))
    bias = b.constant(f"{name}.bias", np.zeros(width, np.float32))
    return b.node("LayerNormalization", [x, scale, bias], axis=-1)


def block(b, x, name, width):
    h = norm(b, x, f"{name}.norm1", width)
    q, k, v = (
        b.node("Reshape", [b.linear(h, f"{name}.{part}", width, width), "split"]) for part in "qkv"
    )
    q, v = (b.node("Transpose", [part], perm=[0, 2, 1, 3]) for part in (q, v))
    k = b.node("Transpose", [k], perm=[0, 2, 3, 1])
    attention = b.node("Softmax", [b.node("Mul", [b.node("MatMul", [q, k]), "root"])], axis=-1)
    mixed = b.node("Transpose", [b.node("MatMul", [attention, v])], perm=[0, 2, 1, 3])
    mixed = b.linear(b.node("Reshape", [mixed, "merge"]), f"{name}.o", width, width)
    x = b.node("Add", [x, mixed])
    h = b.linear(norm(b, x, f"{name}.norm2", width), f"{name}.up", width, 4 * width)
    return b.node("Add", [x, b.linear(b.node("Relu", [h]), f"{name}.down", 4 * width, width)])


def build(folder, layers, width):
    """The model file, and the bytes of its largest tensor."""
    b = Builder(folder, layers)
    b.constant("split", np.array([0, 0, HEADS, width // HEADS]))
    b.constant("merge", np.array([0, 0, width]))
    b.constant("root", np.float32((width // HEADS) ** -0.5))
    x = b.node("Gather", [b.weight("embedding", (VOCABULARY, width), 1), "tokens"])
    for b.layer in range(layers):
        x = block(b, x, f"layer{b.layer}", width)
    x = b.node("ReduceMean", [x], axes=[1], keepdims=0)
    x = b.node("Softmax", [b.linear(x, "head", width, CLASSES)], axis=-1)
    b.nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        b.nodes,
        "large",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", "T"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
        b.weights,
    )
    imports = [helper.make_opsetid("", 17)]
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, (8, TOKENS))
    np.savez(folder / "data.npz", tokens=tokens)
    return path, b.largest


def watched(arguments):
    """Run this file again with `arguments`: what it printed, and its peak memory in MB."""
    command = [sys.executable, __file__, *map(str, arguments)]
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    status = Path(f"/proc/{child.pid}/status")
    peaks = {"VmHWM": 0, "RssAnon": 0}
    while child.poll() is None:
        for line in status.read_text().splitlines():
            key, _, value = line.partition(":")
            if key in peaks:
                peaks[key] = max(peaks[key], int(value.split()[0]) * 1024)
        time.sleep(0.01)
    if child.returncode:
        raise SystemExit(f"{command} failed")
    return json.loads(child.stdout.read()), {
        "peak MB": round(peaks["VmHWM"] / MB),
        "peak MB, private": round(peaks["RssAnon"] / MB),
        "seconds": round(time.perf_counter() - start, 1),
    }


def command(arguments):
    """In a child: run onnxrd, and note the peak before its first session."""
    from onnxrd.cli import main as onnxrd_main

    before, first = [], Session.__init__

    def noted(*args, **kwargs):
        before.append(Path("/proc/self/status").read_text())
        first(*args, **kwargs)

    Session.__init__ = noted
    sys.stdout.flush()
    saved, sys.stdout = sys.stdout, open("/dev/null", "w")  # noqa: SIM115
    onnxrd_main(arguments)
    sys.stdout = saved
    note = {}
    if before:
        kilobytes = int(before[0].partition("VmHWM:")[2].split()[0])
        note["peak MB before the first session"] = round(kilobytes * 1024 / MB)
    print(json.dumps(note))


def sessions(kind, folder):
    """In a child: nothing but the sessions that a command opens."""
    model, small = folder / "model.onnx", folder / "small.onnx"
    data = onnxrd.load_data(folder / "data.npz", onnxrd.load_model(model).inputs)
    batch = next(iter(data.batches(8)))
    if kind == "quantize":  # the reference is as large as the original
        few = next(iter(data.batches(4))).feeds
        for level in LEVELS:
            for path in (model, small):
                Session(path, level=level).run(few)
    together = [Session(path) for path in (model, small)]
    for session in together:
        session.run(batch.feeds)
    print("{}")


def measure(folder, layers, width):
    model, largest = build(folder, layers, width)
    small, data = folder / "small.onnx", folder / "data.npz"
    size = sum(f.stat().st_size for f in folder.iterdir())
    commands = {
        "inspect": ["inspect", model, "--json"],
        "quantize": [
            *("quantize", model, "-o", small, "--clusters", 16),
            *("--objective", "identity", "--data", data),
        ],
        "evaluate": ["evaluate", model, small, "--data", data],
    }
    allowed = (6 * largest + 1e9) / MB
    results = {}
    for name, arguments in commands.items():
        note, peaks = watched(["--command", *arguments])
        results[name] = {**peaks, **note}
        print(name, results[name], flush=True)
    for name in ("quantize", "evaluate"):
        _, alone = watched(["--sessions", name, folder])
        row = results[name]
        row["onnxruntime's sessions alone"] = alone
        row["beside them MB"] = row["peak MB"] - alone["peak MB"]
        row["beside them MB, private"] = row["peak MB, private"] - alone["peak MB, private"]
        print(name, row, flush=True)
    for row in results.values():
        keys = ("beside them MB", "peak MB before the first session")
        own = max((row[key] for key in keys if key in row), default=row["peak MB"])
        row["within the limit"] = own <= allowed
    return {
        "model MB": round(size / MB),
        "largest tensor MB": round(largest / MB, 1),
        "limit beside onnxruntime MB": round(allowed),
        "compressed MB": round(small.stat().st_size / MB),
        "commands": results,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=2048)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.layers, options.width)
    report = {
        "command": "python tests/benchmarks/large.py",
        "layers": options.layers,
        "width": options.width,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        **result,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--command"]:
        command(sys.argv[2:])
    elif sys.argv[1:2] == ["--sessions"]:
        sessions(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
