"""onnxrd inspect: what is in a model."""

from pathlib import Path

import click

from onnxrd.cli import parameters
from onnxrd.cli.console import print_document
from onnxrd.graph.model import load
from onnxrd.graph.weights import find_weights
from onnxrd.report import data as report_data
from onnxrd.report import tables


@click.command()
@parameters.model
@parameters.common
def inspect(model: Path, as_json: bool, quiet: bool, verbose: bool) -> None:
    """List the weights of MODEL: what each is, and why some are left alone.

    \b
    onnxrd inspect model.onnx
    onnxrd inspect model.onnx --json
    """
    loaded = load(model)
    weights = find_weights(loaded)
    print_document(
        as_json, report_data.model_data(loaded, weights), tables.weights_table(loaded, weights)
    )
