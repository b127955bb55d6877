"""What `onnxrd compress` takes: seconds, forward passes, memory.

    python tests/benchmarks/compress_time.py FOLDER=TARGET ... [--threads 2] [--machine WORDS]

as in `resnet20=--max-kl=0.01`. FOLDER holds model.onnx and calib.npz. The command runs in a process
of its own, from start to verified file. A forward pass is that of all samples of calib.npz, which
the command takes, 32 at a time, by stock onnxruntime with as many threads, just before and just
after: the mean of both. Adds to compress_time.json beside this file.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

HERE = Path(__file__).parent
BATCH = 32


def forward(folder, threads):
    """Seconds of a forward pass, and its samples."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    path = folder / "model.onnx"
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = {i.name for i in session.get_inputs()}
    with np.load(folder / "calib.npz") as archive:
        data = {name: archive[name] for name in archive.files if name in names}
    samples = len(next(iter(data.values())))
    start = time.perf_counter()
    for first in range(0, samples, BATCH):
        some = slice(first, min(first + BATCH, samples))
        session.run(None, {name: array[some] for name, array in data.items()})
    return time.perf_counter() - start, samples


def compressed(folder, target, threads):
    """Seconds, bytes and memory of one command."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "small.onnx"
        command = [sys.executable, "-m", "onnxrd", "compress", str(folder / "model.onnx")]
        command += ["-o", str(output), "--data", str(folder / "calib.npz"), "--quiet"]
        command += [target, "--threads", str(threads)]
        before, samples = forward(folder, threads)
        start = time.perf_counter()
        process = os.spawnv(os.P_NOWAIT, sys.executable, command)
        _, status, usage = os.wait4(process, 0)
        seconds = time.perf_counter() - start
        if status:
            raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
        passes = (before + forward(folder, threads)[0]) / 2
        return {
            "target": target,
            "threads": threads,
            "samples": samples,
            "seconds": round(seconds, 1),
            "processor seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "forward pass": round(passes, 3),
            "forward passes": round(seconds / passes, 1),
            "peak MB": usage.ru_maxrss // 1024,
            "bytes": output.stat().st_size,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--machine", default="")
    given = parser.parse_args()
    output = HERE / "compress_time.json"
    for job in given.jobs:
        folder, _, target = job.partition("=")
        found = compressed(Path(folder), target, given.threads) | {"machine": given.machine}
        document = json.loads(output.read_text()) if output.exists() else {"networks": {}}
        document["command"] = "python tests/benchmarks/compress_time.py FOLDER=TARGET ..."
        document["versions"] = {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": ort.__version__,
        }
        document["networks"][Path(folder).name] = found
        output.write_text(json.dumps(document, indent=2) + "\n")
        print(Path(folder).name, found, flush=True)


if __name__ == "__main__":
    main()
