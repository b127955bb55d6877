"""onnxrd evaluate: original against compressed."""

from pathlib import Path

import click

from onnxrd.calibration import load as load_data
from onnxrd.cli import parameters
from onnxrd.cli.console import print_document, progress_bar
from onnxrd.distortion import Tasks
from onnxrd.evaluation import evaluate
from onnxrd.graph.model import load
from onnxrd.graph.session import Provider, Runtime
from onnxrd.progress import silent
from onnxrd.report import data as report_data
from onnxrd.report import tables


@click.command(name="evaluate")
@click.argument("original", type=parameters.FILE)
@click.argument("compressed", type=parameters.FILE)
@parameters.data
@parameters.samples(None)
@parameters.common
def evaluate_command(
    original: Path,
    compressed: Path,
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
    """Run ORIGINAL and COMPRESSED on the same data and compare.

    \b
    onnxrd evaluate model.onnx small.onnx --data eval.npz
    """
    if data is None:
        raise click.UsageError("--data is needed to run the models on.")
    before, after = load(original), load(compressed)
    evaluation = evaluate(
        before,
        after,
        load_data(data, before.inputs, samples=samples, seed=seed),
        task=task,
        runtime=Runtime(threads, provider),
        track=silent if quiet else progress_bar,
    )
    print_document(
        as_json, report_data.evaluation_data(evaluation), tables.evaluation_table(evaluation)
    )
