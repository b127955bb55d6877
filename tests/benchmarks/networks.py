"""Real networks from one end to the other: inspect, importance, quantize --clusters 16, evaluate.

    python tests/benchmarks/networks.py FOLDER [FOLDER ...]

Each FOLDER, named after its network, holds model.onnx and the calibration and evaluation data
calib and eval, as .npz or as folders of calls (see prepare_networks.py). Arrays that are no inputs
of the network are left out. Reports, and writes to networks.json beside this file:

- share of the bytes of floating-point constants that is compressed, and why the others are not;
- importance: the processor's seconds on one thread, as a multiple of the forward passes over the
  same samples (one session, the same process, in turn), how it was taken, and the peak resident set
  of that process up to there; weights whose importance is a stand-in or measured by groups;
- distortion on the evaluation data (mean KL divergence in nats, or squared error relative to the
  original's), and the size of the file: bytes, and bits for each weight, whole file.

Results of networks that are not run again stay in the file.
"""

import argparse
import json
import multiprocessing
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
OPTIONS = {
    "ddddocr": ["--task", "classification"],
    "minilm": ["--task", "regression"],
    "rapidocr_det": ["--task", "regression"],
    "silero_vad": ["--task", "regression"],
}
"""What the end of the graph does not show."""

CALIBRATION = {"efficientnet": 64, "minilm": 64}
EVALUATION = {"efficientnet": 128, "minilm": 256}
SAMPLES = 64, 128


def onnxrd(*arguments):
    """What the command line says, as JSON; its exit code must be 0."""
    command = [sys.executable, "-m", "onnxrd", *map(str, arguments), "--json", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout) if done.stdout else {}


def data_of(folder, part, inputs, into):
    """Path of the data, without arrays that the network does not take."""
    if (folder / part).is_dir():
        return folder / part
    with np.load(folder / f"{part}.npz") as archive:
        arrays = {n: archive[n] for n in archive.files if n in (*inputs, "labels")}
    np.savez(into / f"{part}.npz", **arrays)
    return into / f"{part}.npz"


def constants(inspected):
    """How much of a network is compressed, and why the rest is not."""
    floats = [w for w in inspected["weights"] if "float" in w["dtype"]]
    nbytes = {w["name"]: w["entries"] * np.dtype(w["dtype"]).itemsize for w in floats}
    total = sum(nbytes.values())
    reasons = Counter()
    for weight in floats:
        if weight["left_alone"]:
            reasons[weight["left_alone"]] += nbytes[weight["name"]]
    return {
        "weights": sum(w["entries"] for w in floats),
        "share_compressed": 1 - sum(reasons.values()) / total,
        "left_alone_bytes": dict(reasons.most_common()),
    }


def peak():
    """Bytes; unlike what getrusage says, without those of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure(path, data, samples, task, output, queue):
    """Importance, which is written to a file, and forward passes, in a process of their own."""
    import onnxrd
    from onnxrd.calibration import aligned
    from onnxrd.graph.session import Runtime, Session

    one = Runtime(threads=1)
    model = onnxrd.load_model(path)
    calibration = onnxrd.load_data(data, model.inputs, samples=samples)
    start = time.process_time()
    importance = onnxrd.fisher(model, calibration, task=task, runtime=one)
    seconds, highest = time.process_time() - start, peak()
    importance.save(output)
    session = Session(model.path, runtime=one)
    size = 1 if "one sample" in importance.path else 32

    def forward():
        start = time.process_time()
        for batch in aligned(model, calibration).batches(size):
            session.run(batch.feeds)
        return time.process_time() - start

    passes = min(forward() for _ in range(2))
    about = importance.about()
    queue.put(
        {
            "samples": importance.samples,
            "seconds": seconds,
            "times_forward": seconds / passes,
            "peak_bytes": highest,
            "path": importance.path,
            "stand_ins": about["proxies"],
            "grouped": about["grouped"],
        }
    )


def importance_of(*arguments):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=measure, args=(*arguments, queue))
    child.start()
    child.join()
    if child.exitcode:
        sys.exit(f"importance failed: {arguments}")
    return queue.get()


def run(folder):
    name, path = folder.name, folder / "model.onnx"
    options = OPTIONS.get(name, [])
    inspected = onnxrd("inspect", path)
    inputs = [spec["name"] for spec in inspected["inputs"]]
    with tempfile.TemporaryDirectory() as temporary:
        into = Path(temporary)
        calib, held_out = (data_of(folder, part, inputs, into) for part in ("calib", "eval"))
        task = dict(zip(options[::2], options[1::2])).get("--task")
        samples, importance = CALIBRATION.get(name, SAMPLES[0]), into / "importance.npz"
        measured = importance_of(path, str(calib), samples, task, importance)
        shown = ["--data", calib, *options]
        small, guided = into / "small.onnx", ["--importance", importance]
        quantized = ["quantize", path, "-o", small, "--clusters", "16", *guided, *shown]
        result = onnxrd(*quantized, "--samples", "8")
        shown = ["--data", held_out, *options, "--samples", EVALUATION.get(name, SAMPLES[1])]
        evaluation = onnxrd("evaluate", path, small, *shown)
        before = path.stat().st_size
        return {
            **constants(inspected),
            "importance": measured,
            "without_smaller_encoding": [
                n for n, why in result["skipped"].items() if why == "no encoding of it is smaller"
            ],
            "bytes": [before, small.stat().st_size],
            "bits_per_weight": result["bits_per_weight"],
            "evaluation": {
                "samples": evaluation["samples"],
                "heads": [
                    {
                        key: head[key]
                        for key in ("output", "task", "distortion", "relative_error", "agreement")
                    }
                    for head in evaluation["heads"]
                ],
            },
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    folders = parser.parse_args().folders
    file = HERE / "networks.json"
    known = json.loads(file.read_text()) if file.exists() else {"networks": {}}
    for folder in folders:
        known["networks"][folder.name] = run(folder.resolve())
        known |= {
            "command": "python tests/benchmarks/networks.py FOLDER [FOLDER ...]",
            "machine": f"{platform.machine()}, one core of a busy one: seconds are rough",
        }
        file.write_text(json.dumps(known, indent=2) + "\n")
        print(json.dumps({folder.name: known["networks"][folder.name]}, indent=2), flush=True)


if __name__ == "__main__":
    main()
