"""Figures 2 to 5 of Gao et al. 2019, made again from our own two networks.

    python tests/benchmarks/paper_figures.py

Importance is measured on training samples, accuracy and cross-entropy on test samples. Writes
paper_figures.json and a PNG for each figure beside this script; `--plot` draws them again from the
JSON. It needs matplotlib (`pip install onnxrd[plot]`).
"""

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

import onnxrd
from onnxrd.distortion import find_heads, log_probabilities
from onnxrd.graph.session import Session
from onnxrd.graph.stored import stored_weights
from onnxrd.importance import DAMPING, identity
from onnxrd.measurement import HELD_OUT, best_damped, measure_importance
from onnxrd.options import Options
from onnxrd.quantizers import prune, prune_and_quantize

HERE = Path(__file__).resolve().parent
MODELS = HERE.parents[1] / "models"
JSON = HERE / "paper_figures.json"

NETWORKS = {
    "mnist_mlp": {
        "title": "MNIST, 784-256-256-10",
        "keep": (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.18, 0.25),
        "clusters": (2, 3, 4, 5, 6, 8, 11, 16),
    },
    "cifar10_cnn": {
        "title": "CIFAR-10, 5 conv + 3 fc",
        "keep": (0.03, 0.06, 0.1, 0.15, 0.22, 0.32, 0.5, 0.75),
        "clusters": (2, 3, 4, 5, 6, 8, 11, 16),
    },
}
METHODS = {
    "baseline": ("identity", "baseline: all weights alike", "0.45", "o"),
    "proposed": ("fisher", "proposed: Fisher, no labels", "tab:blue", "s"),
    "gradient": ("gradient", "gradient", "tab:orange", "^"),
    "hessian": ("hessian", "Hessian", "tab:green", "v"),
    "gradient+hessian": ("gradient+hessian", "gradient + Hessian", "tab:red", "D"),
}
FIGURES = {
    "figure2": ("pruning", "without labels", ("baseline", "proposed")),
    "figure3": ("quantization", "without labels", ("baseline", "proposed")),
    "figure4": ("pruning", "with labels", ("baseline", "gradient", "hessian", "gradient+hessian")),
    "figure5": (
        "quantization",
        "with labels",
        ("baseline", "gradient", "hessian", "gradient+hessian"),
    ),
}
PROBES = 4
BITS = 32


def compressed_weights(model):
    """Those that importance is measured for: neither biases nor the scaling of pixels."""
    return [weight for weight in onnxrd.find_weights(model) if not weight.skip]


def paper_size(weights):
    """Size of quantized weights over that of the original: code lengths and codebooks counted.

    (Σ_j m_j ⌈log2(m / m_j)⌉ + k b) / (m b)   in each layer, summed over layers; b = 32
    """
    bits = total = 0.0
    for values in weights:
        counts = np.unique(values, return_counts=True)[1]
        bits += (counts * np.ceil(np.log2(values.size / counts))).sum() + len(counts) * BITS
        total += values.size * BITS
    return bits / total


def tested(path, head, data):
    """(accuracy, cross-entropy in nats) on the test samples."""
    session, hits, losses = Session(path), [], []
    for batch in data.batches(250):
        said = log_probabilities(head, session.run(batch.feeds, [head.output])[head.output])[:, 0]
        hits.append(said.argmax(-1) == batch.labels)
        losses.append(-np.take_along_axis(said, batch.labels[:, None], -1)[:, 0])
    return float(np.concatenate(hits).mean()), float(np.concatenate(losses).mean())


def measured(model, data):
    """Importance by every method."""
    found = {"baseline": identity(model)}
    estimator = onnxrd.Estimator(probes=PROBES)
    for name, (objective, *_) in METHODS.items():
        if name != "baseline":
            options = Options(objective=objective, estimator=estimator, damping=DAMPING)
            found[name] = measure_importance(model, data, options)
    return found


def compressed(kind, setting, weights, importance):
    """The quantizer of a setting, as `onnxrd prune` and `onnxrd quantize` have it."""
    keep, clusters = (setting, None) if kind == "pruning" else (1.0, setting)
    for weight in weights:
        array, h = weight.array(), importance.damped(weight.name, weight.shape)
        q = importance.damped_quartic(weight.name) if importance.quartic else None
        if clusters:
            yield prune_and_quantize(array, h, keep, clusters, q)
        else:
            quartic = None if q is None else {weight.name: q}
            name = weight.name
            pruned = prune({name: array}, {name: h}, keep, scope="layer", quartic=quartic)
            yield pruned[name]


class Bench:
    """A network with its samples: one compression after the other."""

    def __init__(self, name, samples):
        self.model = onnxrd.load_model(MODELS / f"{name}.onnx")
        path = MODELS / f"{name}_calib.npz"
        train = onnxrd.load_data(path, self.model.inputs, samples=samples)
        self.fit, self.held = train.split(HELD_OUT)
        self.test = onnxrd.load_data(MODELS / f"{name}_eval.npz", self.model.inputs)
        (self.head,) = find_heads(self.model.prepared())
        self.importance = measured(self.model, self.fit)

    def tested(self, path):
        return tested(path, self.head, self.test)

    def point(self, kind, setting, method):
        """Both sizes as shares of the original, and what the network still does."""
        h = self.importance[method]
        if method not in ("baseline", "proposed"):  # with labels: damping by held-out samples
            quantizer = partial(compressed, kind, setting)
            h = best_damped(self.model, h, self.held, Options(), quantizer)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "small.onnx"
            how = {"importance": h, "options": Options(force=True)}
            if kind == "pruning":
                onnxrd.prune(self.model.path, path, keep=setting, **how)
            else:
                onnxrd.quantize(self.model.path, path, clusters=setting, **how)
            small = onnxrd.load_model(path)
            accuracy, loss = self.tested(path)
            arrays = [w.array for w in stored_weights(small, compressed_weights(self.model))]
            return {
                "setting": setting,
                "damping": h.damping,
                "paper_size": setting if kind == "pruning" else paper_size(arrays),
                "file_size": small.nbytes / self.model.nbytes,
                "accuracy": accuracy,
                "cross_entropy": loss,
            }


def run(samples):
    started, found = time.perf_counter(), {}
    for name, network in NETWORKS.items():
        bench = Bench(name, samples)
        accuracy, loss = bench.tested(bench.model.path)
        curves = {}
        for kind, settings in (("pruning", "keep"), ("quantization", "clusters")):
            curves[kind] = {}
            for method in METHODS:
                curves[kind][method] = [bench.point(kind, s, method) for s in network[settings]]
                print(f"{time.perf_counter() - started:6.0f} s  {name} {kind} {method}", flush=True)
        found[name] = {
            "samples": {"train": bench.fit.samples, "held out": bench.held.samples},
            "test_samples": bench.test.samples,
            "accuracy": accuracy,
            "cross_entropy": loss,
            "curves": curves,
        }
    found["seconds"] = round(time.perf_counter() - started)
    JSON.write_text(json.dumps(found, indent=1) + "\n")


def plot():
    """A PNG for each figure: accuracy above cross-entropy, each network against both sizes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = json.loads(JSON.read_text())
    for file, (kind, labels, methods) in FIGURES.items():
        figure, axes = pyplot.subplots(
            2, 4, figsize=(17, 8.5), sharex="col", layout="constrained", squeeze=False
        )
        figure.suptitle(f"{kind.capitalize()}, importance {labels}", fontsize=15)
        for row, (quantity, factor) in enumerate((("accuracy", 100), ("cross_entropy", 1))):
            for column, (name, size) in enumerate(
                (n, s) for n in NETWORKS for s in ("paper_size", "file_size")
            ):
                panel = axes[row, column]
                draw(panel, found[name], kind, methods, quantity, factor, size)
                if row == 0:
                    panel.set_title(NETWORKS[name]["title"])
                else:
                    panel.set_xlabel(SIZES[kind, size])
                panel.set_ylabel(QUANTITIES[quantity])
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=12)
        figure.savefig(HERE / f"paper_{file}_{kind}.png", dpi=90)
        pyplot.close(figure)


def draw(panel, network, kind, methods, quantity, factor, size):
    """One panel: a line for each method, and where the original is."""
    for method in methods:
        _, label, colour, marker = METHODS[method]
        points = network["curves"][kind][method]
        x = [100 * p[size] for p in points]
        y = [factor * p[quantity] for p in points]
        panel.plot(x, y, color=colour, marker=marker, markersize=5, label=label, alpha=0.85)
    panel.axhline(
        factor * network[quantity], color="black", linestyle="--", linewidth=1, label="uncompressed"
    )
    panel.grid(alpha=0.3)
    if quantity == "cross_entropy":
        panel.set_yscale("log")


SIZES = {
    ("pruning", "paper_size"): "weights kept (% of all)",
    ("pruning", "file_size"): "bytes of the file (% of the original)",
    ("quantization", "paper_size"): "code lengths + codebooks (% of the original)",
    ("quantization", "file_size"): "bytes of the file (% of the original)",
}
QUANTITIES = {
    "accuracy": "test accuracy (%)",
    "cross_entropy": "test cross-entropy (nats)",
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", action="store_true", help="only draw again")
    parser.add_argument("--samples", type=int, default=1000, help="training samples")
    arguments = parser.parse_args()
    if not arguments.plot:
        run(arguments.samples)
    plot()
