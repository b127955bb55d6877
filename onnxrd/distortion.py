"""What "different" means on a network's outputs: the measure, and where the reverse pass starts.

Two measures. Classification: D_KL(original ‖ compressed) in nats, per position and averaged over
the positions of a sample (eq. 3 of Gao et al. 2019; its expansion is the same in both directions).
Regression: the squared error, summed over the outputs of a sample (eq. 2).

Importance h is scaled so that in both cases  D ≈ ½ Σ_i h_i (w_i − ŵ_i)².
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.errors import ModelError, SettingError

Array = NDArray[Any]
Task = Literal["classification", "regression"]
Choice = Literal["classification", "regression", "ignore"]
Tasks = Task | Mapping[str, Choice] | None
"""What the outputs are: one task for all, or tasks by name of output; None for what shows."""

ALL_OTHERS = "*"
"""Stands, among the names of outputs, for those that are not named."""

Form = Literal["values", "logits", "probabilities", "log-probabilities"]

TAKEN_FOR_LOGITS = "the graph ends in a linear layer, taken for logits"
"""Why an output is thought to be classes, where it need not be."""


@dataclass(frozen=True)
class Head:
    """One output of a network and what is compared there.

    Attributes:
        output: name of the graph output.
        task: classification (KL divergence) or regression (squared error).
        form: what the output holds.
        source: name of the value that the reverse pass starts from: the logits, or the output.
        axis: of the classes.
        flattened: all axes from `axis` on are one distribution (Softmax before opset 13).
        sample_axis: axis 0 counts samples; else all of the output belongs to one sample.
        why: how the task was chosen, for the user.
    """

    output: str
    task: Task
    form: Form
    source: str
    axis: int = -1
    flattened: bool = False
    sample_axis: bool = True
    why: str = ""


def find_heads(
    prepared: ir.Model, task: Tasks = None, *, sample_axis: bool = True
) -> tuple[Head, ...]:
    """Decide for each floating-point output what is compared there.

    A Softmax or LogSoftmax at the end makes a classifier; so does a linear layer with a matrix
    [N, K ≥ 2] as its output (bare logits). Everything else is regression. Where it is said to be
    classes, they are the channels of a convolution, or else on the last axis. Constants that are
    outputs are left out.

    Args:
        prepared: the graph, see `Model.prepared`.
        task: overrides what the end of the graph shows, for all outputs or by name.
        sample_axis: whether axis 0 of the outputs counts samples, see `Calibration.sample_axis`.

    Raises:
        ModelError: the model has no floating-point output.
        SettingError: a task for an output that is none, or all outputs are ignored.
    """
    opset = prepared.opset_imports.get("", 1)
    outputs = {str(v.name): v for v in prepared.graph.outputs if _is_floating_tensor(v)}
    if all(value.is_initializer() for value in outputs.values()):
        raise ModelError("the model has no floating-point output to compare.")
    heads = []
    for name, choice in _choices(task, list(outputs)).items():
        if choice != "ignore" and not outputs[name].is_initializer():
            heads.append(replace(_head(outputs[name], choice, opset), sample_axis=sample_axis))
    if not heads:
        raise SettingError("all outputs are ignored: leave one to compare.")
    return tuple(heads)


def regression(task: Tasks) -> Tasks:
    """Squared error at all outputs, except those that are ignored."""
    if not isinstance(task, Mapping):
        return "regression"
    ignored: dict[str, Choice] = {n: "ignore" for n, choice in task.items() if choice == "ignore"}
    return {ALL_OTHERS: "regression", **ignored}


def ignored(task: Tasks, outputs: Sequence[str]) -> frozenset[str]:
    """Those outputs that are not compared."""
    choices = task if isinstance(task, Mapping) else {}
    return frozenset(n for n in outputs if choices.get(n, choices.get(ALL_OTHERS)) == "ignore")


def _choices(task: Tasks, names: Sequence[str]) -> dict[str, Choice | None]:
    if not isinstance(task, Mapping):
        return dict.fromkeys(names, task)
    if unknown := set(task) - {*names, ALL_OTHERS}:
        raise SettingError(
            f"{sorted(unknown)[0]!r} is no floating-point output of the model. "
            f"It has {', '.join(map(repr, names))}."
        )
    return {name: task.get(name, task.get(ALL_OTHERS)) for name in names}


def _is_floating_tensor(output: ir.Value) -> bool:
    if not isinstance(output.type, ir.TensorType | None):  # a sequence, for example
        return False
    return output.dtype is None or output.dtype.is_floating_point()


def _head(output: ir.Value, task: Task | None, opset: int) -> Head:
    name = str(output.name)
    value = output
    while (node := value.producer()) and node.op_type in ("Identity", "Cast") and node.inputs[0]:
        value = node.inputs[0]
    op = node.op_type if node else ""
    if op in ("Softmax", "LogSoftmax") and task != "regression":
        assert node is not None and node.inputs[0] is not None
        attribute = node.attributes.get("axis")
        axis = attribute.as_int() if attribute else (-1 if opset >= 13 else 1)
        form: Form = "probabilities" if op == "Softmax" else "log-probabilities"
        source = str(node.inputs[0].name)
        why = f"the graph ends in {op}"
        return Head(name, "classification", form, source, axis, opset < 13, why=why)
    if task == "classification" or (task is None and _ends_in_linear_layer(output, value)):
        why = "asked for" if task else TAKEN_FOR_LOGITS
        return Head(name, "classification", "logits", name, _class_axis(value), why=why)
    why = "asked for" if task else "the graph ends neither in Softmax nor in a linear layer"
    return Head(name, "regression", "values", name, why=why)


def _ends_in_linear_layer(output: ir.Value, value: ir.Value) -> bool:
    shape = output.shape
    if shape is None or len(shape) != 2 or (isinstance(shape[1], int) and shape[1] < 2):
        return False
    node = value.producer()
    if node is not None and node.op_type == "Add":  # a bias
        products = [v for v in node.inputs if v is not None and not v.is_initializer()]
        node = products[0].producer() if len(products) == 1 else None
    return node is not None and node.op_type in ("Gemm", "MatMul")


def _class_axis(value: ir.Value) -> int:
    """The axis of the classes in bare logits: the channels of a convolution, or else the last."""
    node = value.producer()
    while node is not None and node.op_type in _KEEP_CHANNELS:
        before = [v for v in node.inputs if v is not None and not v.is_initializer()]
        node = before[0].producer() if before else None
    return 1 if node is not None and node.op_type in _CONVOLUTIONS else -1


_CONVOLUTIONS = ("Conv", "ConvTranspose", "FusedConv")
_KEEP_CHANNELS = (
    *("Add", "BatchNormalization", "Cast", "DepthToSpace", "Identity", "Pad", "Resize", "Slice"),
    *("GlobalAveragePool", "Upsample"),
)
"""Operators behind a convolution that leave its channels on axis 1."""


# Values at the heads


def _rows(head: Head, values: Array) -> Array:
    """The outputs with the classes last: [N, positions, K], or [N, 1, values] for regression."""
    n = sample_count(head, values.shape)
    if head.task == "regression":
        return values.reshape(n, 1, -1)
    if head.flattened:
        axis = head.axis % values.ndim
        values = values.reshape(*values.shape[:axis], -1)
    else:
        values = np.moveaxis(values, head.axis, -1)
    return values.reshape(n, -1, values.shape[-1])


def log_softmax(logits: Array) -> Array:
    """Logarithm of the softmax over the last axis, without overflow."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def log_probabilities(head: Head, outputs: Array) -> Array:
    """What a classification head says, [N, positions, K], as log-probabilities (float64)."""
    rows = _rows(head, outputs).astype(np.float64)
    if head.form == "probabilities":
        return np.log(np.maximum(rows, np.finfo(np.float32).tiny))
    return rows if head.form == "log-probabilities" else log_softmax(rows)


def check_same_shape(name: str, one: Sequence[int], other: Sequence[int]) -> None:
    """Outputs are compared number by number.

    Raises:
        ModelError: an output has two shapes for inputs of one.
    """
    if tuple(one) != tuple(other):
        raise ModelError(
            f"{name!r} has shape {list(one)} once, and once {list(other)}, for inputs of one "
            "shape: how much is found depends on what is computed, as behind NonMaxSuppression, "
            f"and cannot be compared. Leave it out, by --output {name}=ignore, and compare what it "
            "is made of."
        )


def distortion(head: Head, original: Array, compressed: Array) -> NDArray[np.float64]:
    """How far the outputs of each sample moved, [N].

    Classification: D_KL(original ‖ compressed), nats, mean over the positions of a sample.
    Regression: the squared error, summed over the outputs of a sample.
    Where the output has no sample axis it is one sample, N = 1.

    Raises:
        ModelError: see `check_same_shape`.
    """
    check_same_shape(head.output, original.shape, compressed.shape)
    if head.task == "regression":
        difference = _rows(head, original).astype(np.float64) - _rows(head, compressed)
        return np.asarray((difference**2).sum(axis=(1, 2)))
    p = log_probabilities(head, original)
    q = log_probabilities(head, compressed)
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isneginf(p), 0, np.exp(p) * (p - q))  # 0 log 0 = 0
    return np.asarray(terms.sum(axis=-1).mean(axis=-1))


# Seeds of the reverse pass


def sample_count(head: Head, shape: Sequence[int]) -> int:
    """Number of samples in an output, or in a head's source, of this shape."""
    return int(shape[0]) if head.sample_axis else 1


def class_count(head: Head, shape: Sequence[int]) -> int:
    """Number of classes at a head whose source has this shape."""
    if head.flattened:
        return int(np.prod(shape[head.axis % len(shape) :]))
    return int(shape[head.axis])


def classification_seed(
    head: Head, logits: Array, directions: Array, temperature: float = 1.0
) -> Array:
    """Cotangents of logits whose squared gradients estimate eq. (6) of Gao et al. 2019.

    With f = softmax(z / T) and a direction ε per position, s = (ε⊙√f − f (ε·√f)) / T. For random
    signs ε, E[s sᵀ] = (diag f − f fᵀ) / T², the Fisher information of the logits; over the K unit
    vectors the sum of s sᵀ is exactly that.

    Args:
        head: a classification head.
        logits: [N, …] at the head's source.
        directions: [N, positions, K].
        temperature: T.

    Returns: like `logits`, scaled by 1/√positions (distortion is the mean over positions).
    """
    rows = _rows(head, logits).astype(np.float64) / temperature
    root = np.exp(0.5 * log_softmax(rows))
    along = (directions * root).sum(axis=-1, keepdims=True)
    seed = (directions - root * along) * root / (temperature * np.sqrt(rows.shape[1]))
    return _unrows(head, seed, logits.shape)


def sampled_class_seed(
    head: Head, logits: Array, uniform: Array, temperature: float = 1.0
) -> Array:
    """Cotangents e_k − f for classes k drawn from the network's own prediction f.

    Args:
        head: a classification head.
        logits: [N, …] at the head's source.
        uniform: [N, positions], numbers in [0, 1) that the classes are drawn with.
        temperature: T of f = softmax(z / T).
    """
    rows = _rows(head, logits).astype(np.float64) / temperature
    f = np.exp(log_softmax(rows))
    drawn = (f.cumsum(axis=-1) < uniform[..., None]).sum(axis=-1).clip(max=f.shape[-1] - 1)
    seed = -f
    np.put_along_axis(
        seed, drawn[..., None], np.take_along_axis(seed, drawn[..., None], -1) + 1, -1
    )
    return _unrows(head, seed / (temperature * np.sqrt(rows.shape[1])), logits.shape)


def label_seed(head: Head, logits: Array, labels: Array, temperature: float = 1.0) -> Array:
    """Cotangents (f − e_label) / T: the gradient of a sample's cross-entropy with its labels.

    Args:
        head: a classification head.
        logits: [N, …] at the head's source.
        labels: N·positions numbers of classes.
        temperature: T of f = softmax(z / T).

    Returns: like `logits`, divided by the number of positions (the loss is the mean over them).
    """
    rows = _rows(head, logits).astype(np.float64) / temperature
    seed = np.exp(log_softmax(rows))
    at = labels.reshape(*rows.shape[:2], 1)
    np.put_along_axis(seed, at, np.take_along_axis(seed, at, -1) - 1, -1)
    return _unrows(head, seed / (temperature * rows.shape[1]), logits.shape)


def regression_seed(values: Array, directions: Array) -> Array:
    """Cotangents √2·ε: squared gradients then estimate 2 E[∇f ∇fᵀ], eq. (5), for D ≈ ½ Σ h Δ²."""
    return np.asarray(np.sqrt(2.0) * directions).reshape(values.shape)


def positions(head: Head, shape: Sequence[int]) -> tuple[int, int]:
    """(positions, classes) of one sample at a head; (1, outputs) for regression."""
    per_sample = int(np.prod(shape[1:] if head.sample_axis else shape))
    if head.task == "regression":
        return 1, per_sample
    classes = class_count(head, shape)
    return per_sample // classes, classes


def _unrows(head: Head, rows: Array, shape: Sequence[int]) -> Array:
    if head.flattened or head.axis % len(shape) == len(shape) - 1:
        return rows.reshape(shape)
    moved = [d for axis, d in enumerate(shape) if axis != head.axis % len(shape)]
    return np.moveaxis(rows.reshape(*moved, shape[head.axis]), -1, head.axis)
