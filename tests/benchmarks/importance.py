"""Importance of 512 samples: our reverse mode against torch's vmap(grad), and a forward pass.

    python tests/benchmarks/importance.py MODEL CALIB [MODEL CALIB ...]

Both compute E_n[(∂(s_n·z_n)/∂w)²] for all compressible weights, with the same Rademacher seeds s,
sum over the same samples in the same process, on one thread each, in turn, so that a busy machine
disturbs both alike. Time is what the processor spent on the process, the least of the rounds; ours
includes reading the data, building the reverse pass and checking it against one sample at a time.
torch runs with several chunk sizes and the fastest counts. Peak memory is the growth of the
resident set by one measurement, from a process of its own for each. Writes importance.json beside
this file.
"""

import argparse
import json
import multiprocessing
import platform
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
SAMPLES, ROUNDS, CHUNKS = 512, 2, (8, 32)


def ours(path, data):
    """A function that measures importance, and one that runs the forward passes only."""
    import onnxrd
    from onnxrd.graph.session import Runtime, Session

    model = onnxrd.load_model(path)
    calibration = onnxrd.load_data(data, model.inputs, samples=SAMPLES)
    runtime = Runtime(threads=1)
    session = Session(model.path, runtime=runtime)

    def forward():
        for batch in calibration.batches(64):
            session.run(batch.feeds)

    return lambda: onnxrd.fisher(model, calibration, runtime=runtime), forward


def torchs(path, data, chunk, names):
    """The same by torch.func.vmap(grad), `chunk` samples at a time."""
    import torch
    from torch.func import grad, vmap
    from torch_graph import torch_graph

    import onnxrd
    from onnxrd.distortion import find_heads
    from onnxrd.importance import Estimator

    torch.set_num_threads(1)
    model = onnxrd.load_model(path)
    calibration = onnxrd.load_data(data, model.inputs, samples=SAMPLES)
    (head,) = find_heads(model.prepared())
    run, weights = torch_graph(path)
    chosen = {name: weights[name] for name in names}

    def scalar(w, x, s):
        return (run(w, x[None])[0] * s).sum()

    per_sample = vmap(grad(scalar), in_dims=(None, 0, 0))

    def measure():
        totals, done = {name: 0.0 for name in names}, 0
        for batch in calibration.batches(chunk):
            x = torch.from_numpy(next(iter(batch.feeds.values())))
            with torch.no_grad():
                z = run(chosen, x).numpy()
            (seeds,) = Estimator().seeds([head], {head.source: z}, done)
            s = torch.from_numpy(seeds[head.source]).float()
            for name, gradient in per_sample(chosen, x, s).items():
                totals[name] = totals[name] + gradient.square().sum(0)
            done += len(x)
        return {name: total.numpy() / done for name, total in totals.items()}

    return measure


def seconds(action):
    """(processor seconds, the result)."""
    start = time.process_time()
    result = action()
    return time.process_time() - start, result


def peak(build, *arguments):
    """MB by which one measurement raises the peak of the resident set, in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (build, *arguments))


def _peak(build, *arguments):
    made = build(*arguments)
    action = made[0] if isinstance(made, tuple) else made
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    action()
    return (_status("VmHWM") - before) / 1024


def _status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def benchmark(path, data):
    measure, forward = ours(path, data)
    importance = measure()
    names = list(importance.values)
    by_chunk = {chunk: torchs(path, data, chunk, names) for chunk in CHUNKS}
    times = {"ours": [], "forward": []} | {f"torch {c}": [] for c in CHUNKS}
    for _ in range(ROUNDS):
        times["ours"].append(seconds(measure)[0])
        times["forward"].append(seconds(forward)[0])
        for chunk, action in by_chunk.items():
            spent, oracle = seconds(action)
            times[f"torch {chunk}"].append(spent)
    difference = max(
        float(np.abs(importance.values[n] - oracle[n]).sum() / oracle[n].sum()) for n in names
    )
    least = {name: round(min(values), 3) for name, values in times.items()}
    best = min(CHUNKS, key=lambda c: least[f"torch {c}"])
    return {
        "samples": importance.samples,
        "weights": sum(v.size for v in importance.values.values()),
        "path": importance.path,
        "largest relative L1 difference to torch": difference,
        "processor seconds": least,
        "ours / torch (best chunk)": round(least["ours"] / least[f"torch {best}"], 3),
        "ours / forward": round(least["ours"] / least["forward"], 2),
        "peak MB ours": round(peak(ours, path, data), 1),
        f"peak MB torch (chunk {best})": round(peak(torchs, path, data, best, names), 1),
    }


def label(path):
    """`models/cifar10_cnn.onnx`, whatever folder that of the models lies in."""
    return f"{path.parent.name}/{path.name}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="+", type=Path, metavar="MODEL CALIB")
    pairs = parser.parse_args().pairs
    import onnxruntime
    import torch

    report = {
        "command": " ".join(["python tests/benchmarks/importance.py", *map(label, pairs)]),
        "versions": {
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "torch": torch.__version__,
        },
        "networks": {},
    }
    for path, data in zip(pairs[::2], pairs[1::2]):
        name = path.stem if path.stem != "model" else path.parent.name
        report["networks"][name] = benchmark(path, data)
        print(name, json.dumps(report["networks"][name], indent=2), flush=True)
        Path(__file__).with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
