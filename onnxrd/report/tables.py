"""Results as tables for a terminal."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnxrd.evaluation import Evaluation, HeadEvaluation
from onnxrd.graph.model import Model
from onnxrd.graph.specs import format_shape
from onnxrd.graph.weights import Weight
from onnxrd.importance import Importance
from onnxrd.report.result import Layer, Result


def nbytes(count: float) -> str:
    """A size for people: 1094028 → 1.09 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def weights_table(
    model: Model, weights: Iterable[Weight], importance: Mapping[str, str] | None = None
) -> RenderableType:
    """What `onnxrd inspect` shows: inputs, outputs, every constant, totals.

    With how importance would be found, if that is known, in place of what is not.
    """
    weights, importance = list(weights), importance or {}
    last = "importance, or left alone" if importance else "left alone"
    table = plain_table("weight", "shape", "type", "role", ">entries", "axis", "uses", last)
    for w in weights:
        if not w.floating:
            continue
        axis = "" if w.channel_axis is None else str(w.channel_axis)
        uses = str(len(w.uses)) + (" (tied)" if w.tied else "")
        shape = format_shape(w.shape)
        why = importance.get(w.name, w.skip)
        table.add_row(w.name, shape, w.dtype.name, w.role, f"{w.size:,}", axis, uses, why)
    floats = [w for w in weights if w.floating]
    chosen = [w for w in floats if not w.skip]
    share = sum(w.size for w in chosen) / max(1, sum(w.size for w in floats))
    others = len(weights) - len(floats)
    lines = [
        f"{model.path}: {nbytes(model.nbytes)}, opset {model.opset}, IR {model.ir.ir_version}",
        *(f"input  {spec}" for spec in model.inputs),
        *(f"output {name}" for name in model.outputs),
    ]
    total = (
        f"{len(chosen)} weights with {sum(w.size for w in chosen):,} entries to compress "
        f"({share:.1%} of all floating-point constants); {others} other constants not shown"
    )
    return Group(*map(Text, lines), table, Text(total))


def result_table(result: Result, *, held_out: bool = False) -> RenderableType:
    """What commands that compress show: every layer, and the total.

    Args:
        result: what came out.
        held_out: it was measured on samples that nothing was fitted to.
    """
    unit = _unit(result.importance)
    table = plain_table(
        "weight", "role", ">entries", ">levels", ">kept", "encoding", ">bits", f">{unit}", ">share"
    )
    total = sum(layer.distortion for layer in result.layers)
    for layer in result.layers:
        table.add_row(*_layer_row(layer, total))
    parts: list[RenderableType] = [table]
    if result.skipped:
        reasons = Counter(result.skipped.values())
        parts += [Text(f"{n} left alone: {why}") for why, n in sorted(reasons.items())]
    before, after = result.nbytes
    parts.append(
        Text(
            f"{nbytes(before)} → {nbytes(after)}: {result.ratio:.2f} × smaller, "
            f"{result.bits_per_weight:.2f} bits per weight, whole file",
            style="bold",
        )
    )
    if result.predicted is not None:
        what = _measure(result.importance)
        if any(layer.method.startswith("error feedback") for layer in result.layers):
            what += " by diagonal importance, before what error feedback makes good"
        parts.append(Text(f"predicted {what}: {result.predicted:.4g}"))
    if result.evaluation is not None:
        kind = "held-out calibration" if held_out else "calibration"
        parts.append(Text(f"measured on the {result.evaluation.samples} {kind} samples:"))
        parts += [Text(f"  {line}") for h in result.evaluation.heads for line in head_lines(h)]
    parts.append(Text(f"verified at every optimization level: {result.path}"))
    return Group(*parts)


def evaluation_table(evaluation: Evaluation) -> RenderableType:
    """What `onnxrd evaluate` shows."""
    before, after = evaluation.nbytes
    lines = [
        f"{nbytes(before)} → {nbytes(after)}: {evaluation.ratio:.2f} × smaller, "
        f"{evaluation.bits_per_weight:.2f} bits per weight, whole file",
        f"on {evaluation.samples} samples:",
        *(f"  {line}" for head in evaluation.heads for line in head_lines(head)),
    ]
    if evaluation.load_seconds is not None:
        first, second = (1000 * seconds for seconds in evaluation.load_seconds)
        lines.append(f"load time {first:.1f} → {second:.1f} ms")
    if evaluation.latency_ratio is not None:
        lines.append(f"latency × {evaluation.latency_ratio:.2f} (median of paired runs)")
    return Group(*map(Text, lines))


def head_lines(head: HeadEvaluation) -> list[str]:
    """The measurements at one output, a line each."""
    estimate = head.distortion
    what = "KL divergence" if head.task == "classification" else "squared error"
    unit = " nats" if head.task == "classification" else ""
    error = f" ± {estimate.standard_error:.2g}" if estimate.standard_error >= 0 else ""  # or NaN
    lines = [f"{head.output}: {what} {estimate.mean:.4g}{error}{unit}"]
    if head.relative_error is not None:
        lines.append(f"  relative squared error {head.relative_error:.4g}")
    if head.agreement is not None:
        lines.append(f"  same prediction as the original {head.agreement:.2%}")
    if head.accuracy is not None:
        lines.append(f"  accuracy {head.accuracy[0]:.2%} → {head.accuracy[1]:.2%}")
    if head.cross_entropy is not None:
        lines.append(f"  cross-entropy {head.cross_entropy[0]:.4g} → {head.cross_entropy[1]:.4g}")
    return lines


def importance_table(importance: Importance) -> RenderableType:
    """What `onnxrd importance` shows: the distribution in each weight."""
    table = plain_table("weight", ">entries", ">mean", ">median", ">largest", ">zero", "measured")
    for name, values in importance.values.items():
        middle = float(np.median(values))
        zero = float((values == 0).mean())
        numbers = (f"{values.mean():.3g}", f"{middle:.3g}", f"{values.max():.3g}", f"{zero:.1%}")
        table.add_row(name, f"{values.size:,}", *numbers, importance.how(name))
    about = (
        f"{importance.objective}, {importance.task}, {importance.estimator}, "
        f"{importance.samples} samples, {importance.path}"
    )
    return Group(table, Text(about))


def _layer_row(layer: Layer, total: float) -> tuple[str, ...]:
    entries = f"{math.prod(layer.shape):,}"
    levels = "" if layer.levels is None else str(layer.levels)
    levels += f" × {layer.together}" if layer.together > 1 else ""
    share = f"{layer.distortion / total:.1%}" if total else ""
    name = layer.name + (" (no derivative)" if layer.proxy else "")
    kept = f"{layer.kept:.1%}"
    numbers = (f"{layer.bits:.2f}", f"{layer.distortion:.3g}", share)
    return (name, layer.role, entries, levels, kept, layer.encoding, *numbers)


def _unit(importance: Mapping[str, object]) -> str:
    if importance["objective"] == "identity":
        return "½ΣΔ²"
    return "nats" if importance["task"] == "classification" else "½ΣhΔ²"


def _measure(importance: Mapping[str, object]) -> str:
    return "KL divergence" if importance["task"] == "classification" else "distortion"


def plain_table(*columns: str) -> Table:
    """A plain table; a leading `>` aligns a column to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.lstrip(">"), justify="right" if right else "left", overflow="fold")
    return table
