"""A network's rate–distortion curve: many files of it, what they take and what they damage."""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from onnxrd.evaluation import Evaluation
from onnxrd.report.result import Result
from onnxrd.report.tables import nbytes, plain_table

DAMAGES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Damages at which methods are compared."""

BOUND = "Shannon's bound under the same importance"
"""Title of the bound."""

GOOD = 0.01
"""Damage of the file that is shown first, at most."""


@dataclass(frozen=True)
class CurvePoint:
    """One file: written, verified and measured.

    Attributes:
        setting: what set it apart from the other files of its series.
        result: of its compression.
        packed: bytes of its archive (`onnxrd.pack`).
        file: its name; None if it was not kept.
    """

    setting: str
    result: Result
    packed: int
    file: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self.result.nbytes[1]

    @property
    def evaluation(self) -> Evaluation:
        """What was measured."""
        assert self.result.evaluation is not None
        return self.result.evaluation

    @property
    def damage(self) -> float:
        """Relative squared error of the outputs; if some are classes, the distortion."""
        relative = self.evaluation.relative_error
        return self.evaluation.distortion if relative is None else relative

    @property
    def standard_error(self) -> float:
        """Of the damage; NaN for a single sample."""
        whole = self.evaluation.distortion
        unit = self.damage / whole if whole else 1.0
        return unit * math.hypot(*(h.distortion.standard_error for h in self.evaluation.heads))

    @property
    def summary(self) -> str:
        """The damage, and the accuracy where there are labels, in words."""
        accuracy = "" if self.accuracy is None else f", accuracy {self.accuracy:.2%}"
        return f"{self.unit} {self.damage:.3g}{accuracy}"

    @property
    def unit(self) -> str:
        """What the damage is, in a word."""
        if all(head.task == "classification" for head in self.evaluation.heads):
            return "KL"
        return "distortion" if self.evaluation.relative_error is None else "error"

    @property
    def accuracy(self) -> float | None:
        """Mean over the outputs that have labels."""
        found = [head.accuracy[1] for head in self.evaluation.heads if head.accuracy]
        return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class Series:
    """Files of one method, from little damage to much.

    Attributes:
        name: in one word.
        title: for people.
        points: the files.
    """

    name: str
    title: str
    points: tuple[CurvePoint, ...]

    @property
    def drawable(self) -> list[CurvePoint]:
        """Those whose damage has a logarithm."""
        return [p for p in self.points if 0 < p.damage < math.inf]

    @property
    def front(self) -> list[CurvePoint]:
        """Those that no other of the series beats in both bytes and damage, largest first."""
        best, least = [], math.inf
        for point in sorted(self.drawable, key=lambda p: (p.damage, p.nbytes)):
            if point.nbytes < least:
                best.append(point)
                least = point.nbytes
        return best

    def nbytes_at(self, damage: float) -> float | None:
        """Bytes for a damage, between neighbours on the front; None outside of it."""
        front = self.front
        if not front or not front[0].damage <= damage <= front[-1].damage:
            return None
        at, nbytes = zip(*((math.log(p.damage), math.log(p.nbytes)) for p in front))
        return math.exp(float(np.interp(math.log(damage), at, nbytes)))


@dataclass(frozen=True)
class Curve:
    """The curve of a network, with those of simpler methods and the bound beside it.

    Attributes:
        model: path of the network.
        nbytes: of it.
        measured_on: which samples, in words.
        series: methods, the one of `onnxrd.compress` first.
        bound: (damage, bytes) of Shannon's bound under the same importance, with the graph and all
            that no method compresses; empty where importance predicts no damage.
        warnings: what the user should know.
    """

    model: Path
    nbytes: int
    measured_on: str
    series: tuple[Series, ...]
    bound: tuple[tuple[float, float], ...]
    warnings: tuple[str, ...]

    @property
    def measure(self) -> str:
        """What damage is."""
        names = {"KL": "KL divergence, nats", "error": "relative squared error"}
        return names.get(self._first.unit, self._first.unit)

    @property
    def samples(self) -> int:
        """How many it was measured on."""
        return self._first.evaluation.samples

    @property
    def accuracy(self) -> float | None:
        """Of the original, where there are labels."""
        found = [head.accuracy[0] for head in self._first.evaluation.heads if head.accuracy]
        return float(np.mean(found)) if found else None

    @property
    def chosen(self) -> CurvePoint:
        """The smallest file of ours that does little damage; if none does, the least damaged."""
        points = self.series[0].points
        good = [p for p in points if p.damage <= GOOD]
        return min(good, key=lambda p: p.nbytes) if good else min(points, key=lambda p: p.damage)

    @property
    def window(self) -> tuple[tuple[float, float], float]:
        """What a plot shows, (least damage, most), most bytes: ours, and what is beside it."""
        damages = [p.damage for p in self.series[0].drawable] or [1.0]
        low, high = min(damages) / 1.5, max(damages) * 1.5
        beside = [p for s in self.series for p in s.drawable if low <= p.damage <= high]
        return (low, high), 1.08 * max((p.nbytes for p in beside), default=self.nbytes)

    @property
    def _first(self) -> CurvePoint:
        return self.series[0].points[0]


def curve_data(curve: Curve) -> dict[str, Any]:
    """What `onnxrd curve --json` prints."""
    return {
        "model": curve.model,
        "nbytes": curve.nbytes,
        "parameters": curve.chosen.result.parameters,
        "measure": curve.measure,
        "measured_on": curve.measured_on,
        "samples": curve.samples,
        "accuracy": curve.accuracy,
        "importance": curve.chosen.result.importance,
        "series": [
            {"name": s.name, "title": s.title, "points": [_point_data(p) for p in s.points]}
            for s in curve.series
        ],
        "bound": [{"damage": damage, "nbytes": nbytes} for damage, nbytes in curve.bound],
        "nbytes_at": [
            {"damage": damage, **{s.name: s.nbytes_at(damage) for s in curve.series}}
            for damage in DAMAGES
        ],
        "skipped": curve.chosen.result.skipped,
        "warnings": curve.warnings,
    }


def _point_data(point: CurvePoint) -> dict[str, Any]:
    layers = [vars(layer) for layer in point.result.layers]
    return {**_row(point), "layers": layers, "warnings": point.result.warnings}


def _row(point: CurvePoint) -> dict[str, Any]:
    result = point.result
    return {
        "setting": point.setting,
        "file": point.file,
        "nbytes": point.nbytes,
        "packed_nbytes": point.packed,
        "bits_per_weight": result.bits_per_weight,
        "damage": point.damage,
        "standard_error": point.standard_error,
        "distortion": point.evaluation.distortion,
        "predicted": result.predicted,
        "accuracy": point.accuracy,
    }


def curve_csv(curve: Curve) -> str:
    """One line for each file, and for each point of the bound."""
    rows = [{"series": s.name, **_row(p)} for s in curve.series for p in s.points]
    rows += [
        {"series": "bound", "setting": "", "nbytes": round(nbytes), "damage": damage}
        for damage, nbytes in curve.bound
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def curve_table(curve: Curve, folder: Path) -> RenderableType:
    """What `onnxrd curve` shows: every file, and where the report is."""
    table = plain_table(
        "method", "setting", ">file", ">packed", ">bits", f">{curve.chosen.unit}", ">±", ">accuracy"
    )
    for series in curve.series:
        for point in series.points:
            accuracy = "" if point.accuracy is None else f"{point.accuracy:.2%}"
            sizes = (nbytes(point.nbytes), nbytes(point.packed))
            bits, damage = f"{point.result.bits_per_weight:.2f}", f"{point.damage:.3g}"
            error = f"{point.standard_error:.1g}"
            table.add_row(series.name, point.setting, *sizes, bits, damage, error, accuracy)
    best = curve.chosen
    text = (
        f"{nbytes(curve.nbytes)} → {nbytes(best.nbytes)}: {best.result.ratio:.2f} × smaller at "
        f"{best.summary}"
    )
    about = f"measured on {curve.samples} {curve.measured_on} samples: {folder / 'curve.html'}"
    return Group(table, Text(about), Text(text, style="bold"))
