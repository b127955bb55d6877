"""Plots, for which matplotlib has to be installed."""

from pathlib import Path
from typing import Any

from onnxrd.bounds import KINDS, NetworkBound
from onnxrd.errors import SettingError

STYLES = dict(zip(KINDS, (("tab:gray", "-"), ("tab:blue", "--"), ("tab:blue", "-"))))


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
            label=f"{Path(file.name).name}: {file.bits:.2f} bits",
        )
    unit = "KL divergence, nats" if result.in_nats else "½ Σ h Δ²"
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"predicted distortion ({unit})")
    axes.set_ylabel("bits per weight")
    axes.grid(which="major", alpha=0.3)
    axes.legend()
    made.savefig(path, dpi=150, format="png")
