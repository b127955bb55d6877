"""Golden rules and bounds, for people and programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from onnxrd.bounds import KINDS, FileRate, NetworkBound
from onnxrd.diagnosis import GoldenRules, LayerRules
from onnxrd.importance.check import AGREE, Agreement
from onnxrd.report.tables import plain_table

ROUNDING = 1e-6
"""Residuals below this are rounding to float32."""


def rules_data(rules: GoldenRules | None) -> dict[str, Any] | None:
    """What `onnxrd evaluate --json` says of the golden rules."""
    if rules is None:
        return None
    worst = rules.worst
    return {
        "rule1": rules.rule1,
        "rule2": rules.rule2,
        "predicted": rules.predicted,
        "worst_rule1": worst and worst[0].name,
        "worst_rule2": worst and worst[1].name,
        "layers": [
            {
                "name": layer.name,
                "entries": layer.entries,
                "constraint": layer.constraint,
                "predicted": layer.predicted,
                "rule1": layer.rule1,
                "rule2": layer.rule2,
            }
            for layer in rules.layers
        ],
        "missing": list(rules.missing),
    }


def with_rules(above: RenderableType, rules: GoldenRules | None) -> RenderableType:
    """The golden rules below another table: every layer, the total, and the worst."""
    if rules is None:
        return above
    table = plain_table("weight", ">entries", "constraint", ">½ΣhΔ²", ">rule 1", ">rule 2")
    for layer in rules.layers:
        table.add_row(*_rules_row(layer))
    lines = [
        f"golden rules, all layers: rule 1 {rules.rule1:+.2g}, rule 2 {rules.rule2:+.2g}; "
        f"predicted distortion {rules.predicted:.4g}"
    ]
    lines += _worst(rules)
    if rules.missing:
        lines.append(
            f"{len(rules.missing)} weights are not in the compressed file in any form that could "
            f"be read: {', '.join(rules.missing[:5])}{', …' if len(rules.missing) > 5 else ''}"
        )
    return Group(above, Text(), table, *map(Text, lines))


def _rules_row(layer: LayerRules) -> tuple[str, ...]:
    rule2 = "" if layer.rule2 is None else f"{layer.rule2:+.2g}"
    numbers = (f"{layer.predicted:.3g}", f"{layer.rule1:+.2g}", rule2)
    return (layer.name, f"{layer.entries:,}", layer.constraint, *numbers)


def _worst(rules: GoldenRules) -> list[str]:
    """Which layers violate the rules most, and what mending that would gain there."""
    if rules.worst is None:
        return []
    first, second = rules.worst
    lines = []
    if abs(first.rule1) > ROUNDING:
        gain = _share(first.pull * first.rule1 / 2, first)
        lines.append(
            f"rule 1 is violated most by {first.name}: times {1 + first.rule1:.5g} it would have "
            f"{gain} less distortion by damped importance"
        )
    else:
        lines.append("rule 1 holds in every layer, up to rounding")
    if second.excess is not None and (second.rule2 or 0) > ROUNDING:
        lines.append(
            f"rule 2 is violated most by {second.name}: the best approximation with "
            f"{second.constraint} would have {_share(second.excess, second)} less distortion by "
            "damped importance"
        )
    return lines


def _share(gain: float, layer: LayerRules) -> str:
    """Of the layer's distortion, both by damped importance."""
    return f"{100 * gain / layer.spent:.3g}%"


def bound_data(result: NetworkBound) -> dict[str, Any]:
    """What `onnxrd bound --json` prints."""
    return {
        "entries": result.entries,
        "in_nats": result.in_nats,
        "distortion_at_zero_rate": result.zero_rate,
        "points": [{"distortion": p.distortion, "bits": p.bits} for p in result.points],
        "layers": [
            {
                "name": weight.name,
                "entries": weight.size,
                "deviation": deviation,
                "importance": importance,
                "bits": [
                    dict(zip(KINDS, (float(b.bits[k]) / weight.size for b in p.bounds)))
                    for p in result.points
                ],
            }
            for k, (weight, deviation, importance) in enumerate(
                zip(result.weights, result.deviations, result.importance)
            )
        ],
        "files": [_file_data(result, file) for file in result.files],
        "curves": {
            kind: {"distortion": curve[0].tolist(), "bits": curve[1].tolist()}
            for kind, curve in zip(KINDS, result.curves)
        },
    }


def _file_data(result: NetworkBound, file: FileRate) -> dict[str, Any]:
    columns = zip(result.weights, file.layer_bits, file.layer_distortion)
    return {
        "path": file.name,
        "distortion": file.point.distortion,
        "bits": file.bits,
        "whole_file_bits": file.file_bits,
        "bound": file.point.bits,
        "layers": [
            {
                "name": weight.name,
                "bits": bits,
                "distortion": distortion,
                "bound": dict(
                    zip(KINDS, (float(b.bits[k]) / weight.size for b in file.point.bounds))
                ),
            }
            for k, (weight, bits, distortion) in enumerate(columns)
        ],
    }


def bound_table(result: NetworkBound) -> RenderableType:
    """What `onnxrd bound` shows: the bounds at every distortion, and files beside them."""
    unit = "nats" if result.in_nats else "½ΣhΔ²"
    table = plain_table(f">{unit}", *(f">bits, {kind}" for kind in KINDS))
    for point in result.points:
        table.add_row(f"{point.distortion:.4g}", *(f"{b:.3f}" for b in point.bits.values()))
    parts: list[RenderableType] = [
        Text(f"least bits per weight of {result.entries:,} weights for a distortion:"),
        table,
        Text(f"without a single bit: {result.zero_rate:.4g} {unit}"),
    ]
    for file in result.files:
        parts += [Text(), _file_table(result, file), Text(_sentence(file, unit), style="bold")]
    if result.files:
        parts.append(Text(_CAVEAT))
    return Group(*parts)


def _file_table(result: NetworkBound, file: FileRate) -> RenderableType:
    table = plain_table("weight", ">entries", ">bits", ">bound", ">distortion", ">its share")
    total = file.point.distortion
    least = file.point.bounds[-1]
    for k, (weight, bits, spent) in enumerate(
        zip(result.weights, file.layer_bits, file.layer_distortion)
    ):
        bound = f"{least.bits[k] / weight.size:.2f}"
        share = f"{spent / total:.1%}"
        table.add_row(weight.name, f"{weight.size:,}", f"{bits:.2f}", bound, f"{spent:.3g}", share)
    return table


_CAVEAT = (
    "Distortion is ½ΣhΔ² by diagonal importance, which knows nothing of what error feedback makes "
    "good: of files of `onnxrd compress` it says far too much, see `onnxrd evaluate`."
)


def _sentence(file: FileRate, unit: str) -> str:
    least = file.point.bits
    return (
        f"{file.name} spends {file.bits:.2f} bits per weight ({file.file_bits:.2f} with the rest "
        f"of the file) where the bound for its distortion, {file.point.distortion:.4g} {unit}, is "
        f"{least['empirical']:.2f} ({least['by tensor']:.2f} if importance is known by tensor only)"
    )


def check_data(found: Sequence[Agreement]) -> dict[str, Any]:
    """What `onnxrd importance --check --json` prints."""
    return {
        "agree": all(each.agrees for each in found),
        "tolerance": AGREE,
        "weights": [{**asdict(each), "agrees": each.agrees} for each in found],
    }


def check_table(found: Sequence[Agreement]) -> RenderableType:
    """What `onnxrd importance --check` shows."""
    table = plain_table("weight", ">checked", ">median apart", ">largest", ">ratio of sums", "")
    for each in found:
        numbers = (f"{each.median:.2%}", f"{each.largest:.1%}", f"{each.ratio:.4f}")
        verdict = each.why_not or ("agrees" if each.agrees else "DIFFERS")
        row = ("", "", "") if each.why_not else numbers
        table.add_row(each.name, str(each.entries), *row, verdict)
    compared = [each for each in found if not each.why_not]
    agreeing = sum(each.agrees for each in compared)
    text = (
        f"autodiff and finite differences agree in {agreeing} of {len(compared)} weights "
        f"(median relative difference up to {AGREE:.0%})"
    )
    if len(compared) < len(found):
        text += f"; {len(found) - len(compared)} have no derivative to compare"
    return Group(table, Text(text, style="bold"))
