"""What it takes to load a compressed network: memory and time of a fresh process.

    python -m tests.benchmarks.load_memory FOLDER [FOLDER ...]     (Linux)

Each FOLDER holds model.onnx. Its weights get codebooks of 16 levels by k-means, or are on trellises
of half their standard deviation, about 3 bits. They are stored in the fewest bytes, and in the
fewest that `encodings.leaner` finds within 16, 12 and 8 bytes of memory a parameter. Writes
load_memory.json: bytes of the file; bytes of memory a parameter, as foretold for decoding, at the
peak, and for good; seconds of processor time a million parameters, one thread.
"""

import argparse
import json
import math
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime

import onnxrd
from onnxrd import encodings
from onnxrd.evaluation import count_parameters
from onnxrd.graph.model import save
from onnxrd.quantizers import prune_and_quantize
from onnxrd.quantizers.viterbi import COARSER, round_to_trellis
from tests import networks

HERE = Path(__file__).resolve().parent
LIMITS = (None, 16, 12, 8)
LOAD = """
import sys, time
import onnxruntime
def status(key):
    return int(open("/proc/self/status").read().split(key + ":")[1].split()[0]) * 1024
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
onnxruntime.InferenceSession(sys.argv[2], options, providers=["CPUExecutionProvider"])
before, start = status("VmRSS"), time.process_time()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(status("VmHWM") - before, status("VmRSS") - before, time.process_time() - start)
"""


def loading(path, parameters):
    """Memory and time of loading a file, for each parameter and for a million of them."""
    first = networks.mlp(path.with_name("first.onnx"), sizes=(2, 2))
    command = [sys.executable, "-c", LOAD, str(path), str(first)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak, after, seconds = map(float, said.split())
    return {
        "file": path.stat().st_size,
        "peak": round(peak / parameters, 2),
        "for good": round(after / parameters, 2),
        "seconds a million": round(1e6 * seconds / parameters, 3),
    }


def on_levels(array):
    """16 of them, by k-means."""
    return prune_and_quantize(array, np.ones(array.shape, np.float32), 1.0, 16)


def on_trellis(array):
    """Of a step of half the standard deviation."""
    step = float(array.std()) / 2 / COARSER
    return round_to_trellis(array, step) if array.ndim > 1 and step else on_levels(array)


def measured(path, folder):
    """One network: the original, and compressed within each limit."""
    model = onnxrd.load_model(path)
    parameters = count_parameters(model)
    copy = Path(shutil.copy(path, folder))
    found = {"parameters": parameters, "original": loading(copy, parameters)}
    weights = [w for w in onnxrd.find_weights(model) if not w.skip]
    for quantize in (on_levels, on_trellis):
        books = {w.name: quantize(w.array()) for w in weights}
        found[quantize.__name__.replace("_", " ")] = {
            f"within {limit} bytes a parameter" if limit else "fewest bytes": stored(
                model, books, limit, folder / "small.onnx"
            )
            for limit in LIMITS
        }
    return found


def stored(model, books, limit, path):
    """A compressed network within one limit."""
    parameters = count_parameters(model)
    others = 4 * (parameters - sum(math.prod(book.shape) for book in books.values()))
    smaller = model.holding(books)
    slots = encodings.slots(smaller, books)
    fragments = encodings.cheapest_together(books, slots)
    if limit is not None:
        allowed = limit * parameters - others
        fragments = encodings.leaner(fragments, books, slots, load_limit=allowed)
    encodings.write(smaller, fragments)
    save(smaller, path)
    foretold = (others + encodings.load_nbytes(fragments.values())) / parameters
    return {
        **loading(path, parameters),
        "foretold": round(foretold, 2),
        "turns": 1 + max(fragment.turn for fragment in fragments.values()),
        "weights by encoding": dict(Counter(fragment.encoding for fragment in fragments.values())),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    report = {
        "command": "python -m tests.benchmarks.load_memory FOLDER ...",
        "versions": {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__},
        "networks": {},
    }
    for folder in parser.parse_args().folders:
        with tempfile.TemporaryDirectory() as scratch:
            found = measured(folder / "model.onnx", Path(scratch))
        report["networks"][folder.name] = found
        print(json.dumps({folder.name: found}, indent=2), flush=True)
        (HERE / "load_memory.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
