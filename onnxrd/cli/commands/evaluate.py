"""onnxrd evaluate: original against compressed."""

from pathlib import Path

import click

from onnxrd import pipeline
from onnxrd.calibration import Calibration
from onnxrd.calibration import load as load_data
from onnxrd.cli import parameters
from onnxrd.cli.console import print_document, progress_bar, stderr
from onnxrd.diagnosis import GoldenRules, golden_rules
from onnxrd.distortion import Tasks
from onnxrd.errors import ImportanceError
from onnxrd.evaluation import evaluate
from onnxrd.graph.model import Model, load
from onnxrd.graph.session import Provider, Runtime
from onnxrd.importance import Estimator, load_importance
from onnxrd.options import Options
from onnxrd.progress import silent
from onnxrd.report import data as report_data
from onnxrd.report import tables, theory

FOR_IMPORTANCE = 512
"""Samples on which importance is measured, if it is not given."""


LARGE = 1_000_000_000
"""Bytes of a model whose importance is not measured in passing."""


@click.command(name="evaluate")
@click.argument("original", type=parameters.FILE)
@click.argument("compressed", type=parameters.FILE)
@parameters.data
@parameters.samples(None)
@click.option(
    "--importance",
    type=parameters.FILE,
    help="What the golden rules reckon with.  [default: measured on DATA]",
)
@parameters.cache
@click.option("--no-rules", is_flag=True, help="Leave out the golden rules, and be done sooner.")
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
    importance: Path | None,
    cache: Path | None,
    no_rules: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Run ORIGINAL and COMPRESSED on the same data and compare.

    Says of every layer, too, how far it is from the golden rules: whether a common factor would
    improve it (rule 1), and by how much the best approximation of its kind is better (rule 2).

    \b
    onnxrd evaluate model.onnx small.onnx --data eval.npz
    onnxrd evaluate model.onnx small.onnx --data eval.npz --importance importance.npz
    """
    if data is None:
        raise click.UsageError("--data is needed to run the models on.")
    before, after = load(original), load(compressed)
    rows = load_data(data, before.inputs, samples=samples, seed=seed)
    options = Options(
        estimator=Estimator(seed=seed),
        task=task,
        seed=seed,
        cache=cache,
        runtime=Runtime(threads, provider),
        track=silent if quiet else progress_bar,
    )
    evaluation = evaluate(
        before, after, rows, task=task, runtime=options.runtime, track=options.track
    )
    rules = None if no_rules else _rules(before, after, importance, rows, options, quiet)
    print_document(
        as_json,
        report_data.evaluation_data(evaluation) | {"golden_rules": theory.rules_data(rules)},
        theory.with_rules(tables.evaluation_table(evaluation), rules),
    )


def _rules(
    before: Model,
    after: Model,
    importance: Path | None,
    rows: Calibration,
    options: Options,
    quiet: bool,
) -> GoldenRules | None:
    """The golden rules; None, and a warning, where importance is not or cannot be measured."""
    if importance is not None:
        known = load_importance(importance, before)
        return golden_rules(before, after, known, track=options.track)
    if before.nbytes > LARGE:
        if not quiet:
            text = "warning: no golden rules for a model this large, unless --importance is given."
            stderr().print(text, style="bold yellow", soft_wrap=True)
        return None
    try:
        some = rows.spread(FOR_IMPORTANCE)
        measured = pipeline.measure_importance(before, some, options)
    except ImportanceError as error:
        if not quiet:
            text = f"warning: no golden rules: {error}"
            stderr().print(text, style="bold yellow", soft_wrap=True)
        return None
    return golden_rules(before, after, measured, track=options.track)
