"""onnxrd bound: how few bits a distortion costs, whatever the compressor."""

from pathlib import Path
from typing import Any

import click

from onnxrd import bounds, pipeline
from onnxrd.calibration import load as load_data
from onnxrd.cli import parameters
from onnxrd.cli.console import print_document
from onnxrd.graph.model import atomic_output, load
from onnxrd.importance import load_importance
from onnxrd.pipeline.job import files_of
from onnxrd.report import theory
from onnxrd.report.plots import plot_bound


@click.command()
@parameters.model
@click.option("--importance", type=parameters.FILE, help="Measured by `onnxrd importance`.")
@click.option(
    "--distortion",
    "distortions",
    type=float,
    multiple=True,
    help="Where to report; may be given several times.",
)
@click.option(
    "--against",
    type=parameters.FILE,
    multiple=True,
    help="A compressed version of MODEL, by any tool, to compare; may be given several times.",
)
@click.option("--plot", type=parameters.FILE, help="Draw the curve to this PNG.")
@parameters.data
@parameters.samples(512)
@parameters.estimation
@parameters.common
def bound(
    model: Path,
    importance: Path | None,
    distortions: tuple[float, ...],
    against: tuple[Path, ...],
    plot: Path | None,
    data: str | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Show how few bits per weight MODEL needs for a distortion, by rate-distortion theory.

    \b
    onnxrd bound model.onnx --importance importance.npz
    onnxrd bound model.onnx --data calib.npz --against small.onnx --plot bound.png
    """
    options = parameters.options(importance=importance, **rest)
    if (data is None) == (importance is None) and options.objective != "identity":
        raise click.UsageError("give --importance, or --data to measure it on (not both).")
    loaded, versions = load(model), [load(path) for path in against]
    if importance is not None:
        h = load_importance(importance, loaded)
    else:
        rows = None
        if data is not None:
            rows = load_data(data, loaded.inputs, samples=options.samples, seed=options.seed)
        h = pipeline.measure_importance(loaded, rows, options)
    result = bounds.bound(
        loaded, h, distortions=distortions or None, against=versions, track=options.track
    )
    if plot is not None:
        inputs = [file for each in (loaded, *versions) for file in each.files]
        with atomic_output(plot, never=(*inputs, *files_of(data, importance))) as temporary:
            plot_bound(result, temporary)
    print_document(as_json, theory.bound_data(result), theory.bound_table(result))
