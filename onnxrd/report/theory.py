"""Golden rules and bounds, for people and programs."""

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from onnxrd.diagnosis import GoldenRules, LayerRules
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
    """Which layers violate the rules most, and what mending that would gain."""
    if rules.worst is None:
        return []
    first, second = rules.worst
    lines = []
    if abs(first.rule1) > ROUNDING:
        gain = first.pull * first.rule1 / 2
        lines.append(
            f"rule 1 is violated most by {first.name}: times {1 + first.rule1:.5g} it would have "
            f"{gain:.3g} less distortion"
        )
    else:
        lines.append("rule 1 holds in every layer, up to rounding")
    if second.rule2 is not None and second.rule2 > ROUNDING:
        lines.append(
            f"rule 2 is violated most by {second.name}: the best approximation with "
            f"{second.constraint} would have {second.excess:.3g} less distortion"
        )
    return lines
