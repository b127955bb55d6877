"""onnxrd inspect: what is in a model."""

from pathlib import Path

import click

from onnxrd.calibration import load as load_data
from onnxrd.cli import parameters
from onnxrd.cli.console import print_document
from onnxrd.distortion import Tasks
from onnxrd.graph.model import load
from onnxrd.graph.session import Provider, Runtime
from onnxrd.graph.weights import find_weights
from onnxrd.importance.outlook import outlook
from onnxrd.report import data as report_data
from onnxrd.report import tables


@click.command()
@parameters.model
@parameters.data
@parameters.samples(512)
@parameters.common
def inspect(
    model: Path,
    data: str | None,
    samples: int | None,
    seed: int,
    threads: int,
    provider: Provider,
    task: Tasks,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """List the weights of MODEL: what each is, and why some are left alone.

    With data, also how the importance of each would be measured.

    \b
    onnxrd inspect model.onnx
    onnxrd inspect model.onnx --data calib.npz
    onnxrd inspect model.onnx --json
    """
    loaded = load(model)
    weights = find_weights(loaded)
    how = None
    if data is not None:
        rows = load_data(data, loaded.inputs, samples=samples, seed=seed)
        how = outlook(loaded, rows, task=task, runtime=Runtime(threads, provider))
    print_document(
        as_json,
        report_data.model_data(loaded, weights, how),
        tables.weights_table(loaded, weights, how),
    )
