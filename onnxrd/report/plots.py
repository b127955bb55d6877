"""Plots, for which matplotlib has to be installed."""

from pathlib import Path
from typing import Any

import numpy as np

from onnxrd.bounds import KINDS, NetworkBound
from onnxrd.errors import SettingError
from onnxrd.report.curve import BOUND, Curve
from onnxrd.report.svg import decades
from onnxrd.report.tables import nbytes as size

STYLES = dict(zip(KINDS, (("tab:gray", "-"), ("tab:blue", "--"), ("tab:blue", "-"))))
COLOURS = ("#0b62b8", "#c4501b", "#5b6670", "#7d4aa8")


def figure(width: float = 7, height: float = 4.5) -> tuple[Any, Any]:
    """An empty figure and its axes, drawn to files only.

    Raises:
        SettingError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingError(
            "plots need matplotlib, which is not installed: pip install 'onnxrd[plot]'."
        ) from error
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made, made.add_subplot()


def _literal(name: str) -> str:
    """The name of a file as it is, even where its dollars would enclose a formula."""
    return name.replace("$", r"\$")


def plot_bound(result: NetworkBound, path: Path) -> None:
    """Bits per weight against distortion: the bounds as lines, files as points.

    Args:
        result: of `onnxrd.bounds.bound`.
        path: of the PNG to write.

    Raises:
        SettingError: matplotlib is not installed.
    """
    made, axes = figure()
    for kind, (distortion, bits) in zip(KINDS, result.curves):
        colour, line = STYLES[kind]
        axes.plot(
            distortion, bits, line, color=colour, label=f"bound, {kind.replace('gauss', 'Gauss')}"
        )
    for number, file in enumerate(result.files):
        axes.plot(
            [file.point.distortion],
            [file.bits],
            "osD^v"[number % 5],
            color=f"C{number + 1}",
            label=f"{_literal(Path(file.name).name)}: {file.bits:.2f} bits",
        )
    unit = "KL divergence, nats" if result.in_nats else "½ Σ h Δ²"
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"predicted distortion ({unit})")
    axes.set_ylabel("bits per weight")
    axes.grid(which="major", alpha=0.3)
    axes.legend()
    made.savefig(path, dpi=150, format="png")


def plot_curve(curve: Curve, path: Path) -> None:
    """Bytes against damage: a line with marks for each method, and the bound.

    Args:
        curve: of `onnxrd.curve`.
        path: of the PNG to write.

    Raises:
        SettingError: matplotlib is not installed.
    """
    made, axes = figure(8, 5.5)
    for number, series in enumerate(curve.series):
        points = series.drawable
        axes.plot(
            [p.damage for p in points],
            [p.nbytes for p in points],
            f"-{'osD^'[number % 4]}",
            color=COLOURS[number % len(COLOURS)],
            linewidth=1.5 if number else 2.5,
            label=series.title,
        )
    if curve.bound:
        axes.plot(*np.array(curve.bound).T, "--", color="0.4", label=BOUND)
    (low, high), most = curve.window
    axes.set(xscale="log", xlim=(low, high), ylim=(0, most))
    axes.set(xlabel=curve.measure, ylabel="file", title=_literal(curve.model.name))
    axes.set_xticks(ticks := decades(low, high), [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda y, _: size(y))
    weight = max(curve.chosen.result.parameters, 1) / 8
    bits = axes.secondary_yaxis("right", functions=(lambda y: y / weight, lambda y: y * weight))
    bits.set_ylabel("bits per weight, whole file")
    axes.grid(alpha=0.3)
    made.legend(loc="outside lower left", ncols=2, frameon=False)
    made.savefig(path, dpi=150, format="png")
