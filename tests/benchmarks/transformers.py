"""Importance of transformers: peak memory, and time as a multiple of the forward pass.

    python tests/benchmarks/transformers.py [MODEL CALIB]

Without arguments a network of the shape of BERT-base (110 million weights, random, written to a
temporary folder) on 32 samples of 128 tokens; else a sentence encoder on 256 samples (regression;
arrays of CALIB that are no inputs are left out). In a process of its own, on one thread: the peak
of its resident set before and after loading and after importance, and the processor's seconds for
importance (all of it: reading the data, building the reverse pass and checking it against one
sample at a time) and for the forward passes over the same samples, 16 at a time. Writes
transformers.json beside this file; the results of networks that are not run again stay in it.
"""

import argparse
import json
import multiprocessing
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

import onnxrd
from onnxrd.graph.session import Runtime, Session

VOCABULARY, POSITIONS, WIDTH, HEADS, LAYERS, CLASSES = 30522, 512, 768, 12, 12, 2
TOKENS, SAMPLES, ENCODER_SAMPLES, BATCH = 128, 32, 256, 16
ONE = Runtime(threads=1)


class Bert:
    """The encoder as PyTorch exports it: separate projections, Gelu by Erf, a pooled class."""

    def __init__(self):
        self.nodes, self.weights = [], []
        self.rng = np.random.default_rng(0)

    def constant(self, name, value):
        self.weights.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name, *shape):
        array = self.rng.standard_normal(shape, np.float32)
        return self.constant(name, array * np.float32(shape[0] ** -0.5 if len(shape) > 1 else 0.02))

    def node(self, op, *inputs, **attributes):
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def linear(self, x, name, rows, columns):
        product = self.node("MatMul", x, self.weight(f"{name}.weight", rows, columns))
        return self.node("Add", product, self.weight(f"{name}.bias", columns))

    def norm(self, x, name):
        scale = self.constant(f"{name}.scale", np.ones(WIDTH, np.float32))
        return self.node("LayerNormalization", x, scale, self.weight(f"{name}.bias", WIDTH))

    def attention(self, x, mask, name):
        q, k, v = (
            self.node("Reshape", self.linear(x, f"{name}.{part}", WIDTH, WIDTH), "split")
            for part in ("query", "key", "value")
        )
        q, v = (self.node("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
        k = self.node("Transpose", k, perm=[0, 2, 3, 1])
        scores = self.node("Add", self.node("Div", self.node("MatMul", q, k), "root"), mask)
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        mixed = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.linear(self.node("Reshape", mixed, "merge"), f"{name}.output", WIDTH, WIDTH)

    def layer(self, x, mask, name):
        x = self.norm(
            self.node("Add", x, self.attention(x, mask, f"{name}.attention")), f"{name}.norm1"
        )
        h = self.linear(x, f"{name}.up", WIDTH, 4 * WIDTH)
        erf = self.node("Add", self.node("Erf", self.node("Div", h, "√2")), "1")
        h = self.node("Mul", self.node("Mul", h, erf), "½")
        down = self.linear(h, f"{name}.down", 4 * WIDTH, WIDTH)
        return self.norm(self.node("Add", x, down), f"{name}.norm2")

    def embedding(self):
        parts = [
            self.node("Gather", self.weight("words", VOCABULARY, WIDTH), "input_ids"),
            self.node("Gather", self.weight("kinds", 2, WIDTH), "token_type_ids"),
            self.node("Gather", self.weight("places", POSITIONS, WIDTH), "order"),
        ]
        both = self.node("Add", self.node("Add", parts[0], parts[1]), parts[2])
        return self.norm(both, "embedding.norm")

    def save(self, path):
        floats = {"root": (WIDTH // HEADS) ** 0.5, "√2": 2**0.5, "1": 1, "½": 0.5, "low": -1e4}
        for name, value in floats.items():
            self.constant(name, np.float32(value))
        self.constant("split", np.array([0, 0, HEADS, WIDTH // HEADS]))
        self.constant("merge", np.array([0, 0, WIDTH]))
        self.constant("order", np.arange(TOKENS)[None])
        self.constant("middle", np.array([1, 2]))
        kept = self.node("Cast", "attention_mask", to=TensorProto.FLOAT)
        gone = self.node("Mul", self.node("Sub", "1", kept), "low")
        mask = self.node("Unsqueeze", gone, "middle")
        x = self.embedding()
        for number in range(LAYERS):
            x = self.layer(x, mask, f"layer{number}")
        first = self.node("Gather", x, self.constant("first", np.int64(0)), axis=1)
        pooled = self.node("Tanh", self.linear(first, "pooler", WIDTH, WIDTH))
        self.node("Softmax", self.linear(pooled, "classifier", WIDTH, CLASSES), axis=-1)
        self.nodes[-1].output[0] = "probabilities"
        graph = helper.make_graph(
            self.nodes,
            "bert",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, ["N", TOKENS])
                for name in ("input_ids", "attention_mask", "token_type_ids")
            ],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])],
            self.weights,
        )
        imports = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)


def sentences(path):
    """Tokens of many frequencies, sentences of many lengths."""
    rng = np.random.default_rng(1)
    tokens = (VOCABULARY * rng.random((SAMPLES, TOKENS)) ** 3).astype(np.int64)
    mask = np.arange(TOKENS) < rng.integers(TOKENS // 4, TOKENS + 1, (SAMPLES, 1))
    mask = mask.astype(np.int64)
    np.savez(path, input_ids=tokens * mask, attention_mask=mask, token_type_ids=0 * mask)


def peak():
    """Bytes; unlike what getrusage says, without those of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def seconds(action):
    start = time.process_time()
    result = action()
    return time.process_time() - start, result


def measure(path, data, samples, task):
    """In a process of its own: importance, then the forward passes, in turn."""
    at_first = peak()
    model = onnxrd.load_model(path)
    with np.load(data) as arrays:
        feeds = {spec.name: arrays[spec.name][:samples] for spec in model.inputs}
    calibration = onnxrd.load_data(feeds, model.inputs)

    def importance():
        return onnxrd.fisher(model, calibration, task=task, runtime=ONE)

    loaded = peak()
    spent, result = seconds(importance)
    highest = peak()
    session = Session(path, runtime=ONE)

    def forward():
        for batch in calibration.batches(BATCH):
            session.run(batch.feeds)

    passes, _ = seconds(forward)
    return {
        "model MB": round(path.stat().st_size / 1e6),
        "weights": sum(v.size for v in result.values.values()),
        "samples": result.samples,
        "path": result.path,
        "peak MB before loading": round(at_first / 1e6),
        "peak MB after loading": round(loaded / 1e6),
        "peak MB": round(highest / 1e6),
        "peak / model": round(highest / path.stat().st_size, 2),
        "processor seconds": round(spent, 2),
        "forward": round(passes, 2),
        "importance / forward": round(spent / passes, 2),
    }


def alone(*arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", nargs="*", type=Path, metavar="MODEL CALIB")
    encoder = parser.parse_args().encoder
    if encoder:
        path, data = encoder
        name, found = path.parent.name, alone(path, data, ENCODER_SAMPLES, "regression")
    else:
        with tempfile.TemporaryDirectory() as folder:
            path, data = Path(folder, "model.onnx"), Path(folder, "data.npz")
            Bert().save(path)
            sentences(data)
            name, found = "bert-base", alone(path, data, SAMPLES, None)
    print(json.dumps({name: found}, indent=2), flush=True)
    file = Path(__file__).with_suffix(".json")
    known = json.loads(file.read_text()) if file.exists() else {"networks": {}}
    known["networks"][name] = found
    known |= {
        "command": "python tests/benchmarks/transformers.py [MODEL CALIB]",
        "machine": f"{platform.machine()}, a busy one: ratios are good to about ±20 %",
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }
    file.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
