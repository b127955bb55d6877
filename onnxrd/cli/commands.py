"""The commands: parse, call, print."""

from pathlib import Path
from typing import Any, Literal

import click
from rich.console import RenderableType

from onnxrd import pipeline
from onnxrd.calibration import load as load_data
from onnxrd.cli import parameters
from onnxrd.cli.console import progress_bar, stderr, stdout
from onnxrd.distortion import Task
from onnxrd.evaluation import evaluate
from onnxrd.graph.model import atomic_output, load
from onnxrd.graph.weights import find_weights
from onnxrd.progress import silent
from onnxrd.report import data as report_data
from onnxrd.report import tables
from onnxrd.report.result import Result

MODEL = click.argument("model", type=parameters.FILE)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="onnxrd")
def onnxrd() -> None:
    """Compress ONNX models by rate-distortion theory, and measure the damage.

    \b
    onnxrd inspect model.onnx
    onnxrd quantize model.onnx -o small.onnx --clusters 16 --data calib.npz
    onnxrd evaluate model.onnx small.onnx --data eval.npz
    """


@onnxrd.command()
@MODEL
@parameters.common
def inspect(model: Path, as_json: bool, quiet: bool, verbose: bool) -> None:
    """List the weights of MODEL: what each is, and why some are left alone.

    \b
    onnxrd inspect model.onnx
    onnxrd inspect model.onnx --json
    """
    loaded = load(model)
    weights = find_weights(loaded)
    _print(as_json, report_data.model_data(loaded, weights), tables.weights_table(loaded, weights))


@onnxrd.command()
@MODEL
@click.option("-o", "--output", type=parameters.FILE, required=True, help="The .npz to write.")
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
    _print(as_json, report_data.importance_data(measured), tables.importance_table(measured))


@onnxrd.command()
@MODEL
@click.option(
    "--clusters",
    type=click.IntRange(2, 65536),
    default=16,
    show_default=True,
    help="Levels for each weight tensor.",
)
@click.option(
    "--ratio",
    type=parameters.SHARE,
    default=1.0,
    help="Share of the weights to keep; the others become zero.",
)
@parameters.compression
@parameters.data
@parameters.samples(512)
@parameters.estimation
@parameters.common
def quantize(
    model: Path,
    output: Path,
    clusters: int,
    ratio: float,
    data: str | None,
    importance: Path | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Give every weight tensor of MODEL a codebook of a few levels.

    \b
    onnxrd quantize model.onnx -o small.onnx --clusters 16 --data calib.npz
    onnxrd quantize model.onnx -o small.onnx --clusters 8 --importance importance.npz
    onnxrd quantize model.onnx -o small.onnx --clusters 16 --ratio 0.5 --data calib.npz
    """
    result = pipeline.quantize(
        model,
        output,
        clusters=clusters,
        keep=ratio,
        data=data,
        importance=importance,
        options=parameters.options(**rest),
    )
    _print_result(result, as_json, rest["quiet"])


@onnxrd.command()
@MODEL
@click.option("--ratio", type=parameters.SHARE, required=True, help="Share of weights to keep.")
@click.option(
    "--scope",
    type=click.Choice(["layer", "global"]),
    default="layer",
    show_default=True,
    help="The same share in every layer, or one threshold for all.",
)
@parameters.compression
@parameters.data
@parameters.samples(512)
@parameters.estimation
@parameters.common
def prune(
    model: Path,
    output: Path,
    ratio: float,
    scope: Literal["layer", "global"],
    data: str | None,
    importance: Path | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Set the weights of MODEL that matter least to zero, and store the others.

    \b
    onnxrd prune model.onnx -o small.onnx --ratio 0.3 --data calib.npz
    onnxrd prune model.onnx -o small.onnx --ratio 0.3 --scope global --importance importance.npz
    """
    result = pipeline.prune(
        model,
        output,
        keep=ratio,
        scope=scope,
        data=data,
        importance=importance,
        options=parameters.options(**rest),
    )
    _print_result(result, as_json, rest["quiet"])


@onnxrd.command(name="evaluate")
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
    task: Task | None,
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
        threads=threads,
        track=silent if quiet else progress_bar,
    )
    _print(as_json, report_data.evaluation_data(evaluation), tables.evaluation_table(evaluation))


def _print_result(result: Result, as_json: bool, quiet: bool) -> None:
    for warning in () if quiet else result.warnings:
        stderr().print(f"warning: {warning}", style="bold yellow", soft_wrap=True)
    _print(as_json, report_data.result_data(result), tables.result_table(result))


def _print(as_json: bool, document: Any, table: RenderableType) -> None:
    if as_json:
        click.echo(report_data.to_json(document))
    else:
        stdout().print(table)
