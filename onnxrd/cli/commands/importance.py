"""onnxrd importance: how much an error in each weight costs."""

from pathlib import Path
from typing import Any

import click

from onnxrd import pipeline
from onnxrd.calibration import load as load_data
from onnxrd.cli import parameters
from onnxrd.cli.console import print_document
from onnxrd.graph.model import atomic_output, load
from onnxrd.report import data as report_data
from onnxrd.report import tables


@click.command()
@parameters.model
@click.option(
    "-o", "--out", "output", type=parameters.FILE, required=True, help="The .npz to write."
)
@parameters.data
@parameters.samples(512)
@parameters.estimation
@parameters.common
def importance(model: Path, output: Path, data: str | None, as_json: bool, **rest: Any) -> None:
    """Measure how much an error in each weight of MODEL costs.

    \b
    onnxrd importance model.onnx --data calib.npz -o importance.npz
    onnxrd quantize model.onnx -o small.onnx --importance importance.npz
    """
    options = parameters.options(**rest)
    if data is None and options.objective != "identity":
        raise click.UsageError("--data is needed to measure importance on.")
    loaded = load(model)
    given = () if data is None else (Path(data),)
    with atomic_output(output, never=(*loaded.files, *given)) as temporary:
        samples = None
        if data is not None:
            samples = load_data(data, loaded.inputs, samples=options.samples, seed=options.seed)
        measured = pipeline.measure_importance(loaded, samples, options)
        measured.save(temporary)
    print_document(
        as_json, report_data.importance_data(measured), tables.importance_table(measured)
    )
