"""onnxrd importance: how much an error in each weight costs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from onnxrd import pipeline
from onnxrd.cache import Arrays, remembered
from onnxrd.calibration import Calibration
from onnxrd.calibration import load as load_data
from onnxrd.cli import parameters
from onnxrd.cli.console import print_document
from onnxrd.distortion import Tasks, regression
from onnxrd.errors import VerificationError
from onnxrd.graph.model import Model, atomic_output, load
from onnxrd.importance import Importance
from onnxrd.importance.check import AGREE, check
from onnxrd.importance.finite_difference import EXACT_UP_TO, finite_difference
from onnxrd.options import Options
from onnxrd.report import data as report_data
from onnxrd.report import tables, theory


@click.command()
@parameters.model
@click.option(
    "-o", "--out", "output", type=parameters.FILE, help="The .npz to write; needed but for --check."
)
@parameters.data
@parameters.samples(512)
@parameters.estimation
@click.option(
    "--method",
    type=click.Choice(["autodiff", "finite-difference"]),
    default="autodiff",
    show_default=True,
    help="Reverse passes, or forward passes only: slow, and right for any graph that runs.",
)
@click.option(
    "--exact-up-to",
    metavar="N",
    type=click.IntRange(min=1),
    default=EXACT_UP_TO,
    show_default=True,
    help="Finite differences entry by entry in weights of up to N entries, by channel in others.",
)
@click.option(
    "--check",
    "checking",
    is_flag=True,
    help="Compare autodiff with finite differences on random weights instead; exit code 4 if they "
    "disagree.",
)
@parameters.common
def importance(
    model: Path,
    output: Path | None,
    data: str | None,
    method: str,
    exact_up_to: int,
    checking: bool,
    as_json: bool,
    **rest: Any,
) -> None:
    """Measure how much an error in each weight of MODEL costs.

    \b
    onnxrd importance model.onnx --data calib.npz -o importance.npz
    onnxrd quantize model.onnx -o small.onnx --importance importance.npz
    onnxrd importance model.onnx --data calib.npz --check
    """
    options = parameters.options(**rest)
    if (output is None) != checking:
        raise click.UsageError("give -o and a file to write, or --check (which writes nothing).")
    if data is None and (checking or options.objective != "identity"):
        raise click.UsageError("--data is needed to measure importance on.")
    by_differences = checking or method == "finite-difference"
    if by_differences and options.objective not in ("fisher", "regression"):
        raise click.UsageError(
            f"finite differences do not measure --objective {options.objective}: take fisher or "
            "regression."
        )
    loaded = load(model)
    if output is None:
        _check(loaded, _samples(loaded, data, options), options, as_json)
        return
    given = () if data is None else (Path(data),)
    with atomic_output(output, never=(*loaded.files, *given)) as temporary:
        samples = _samples(loaded, data, options)
        if by_differences:
            assert samples is not None
            measured = _by_differences(loaded, samples, options, exact_up_to)
        else:
            measured = pipeline.measure_importance(loaded, samples, options)
        measured.save(temporary)
    print_document(
        as_json, report_data.importance_data(measured), tables.importance_table(measured)
    )


def _samples(model: Model, data: str | None, options: Options) -> Calibration | None:
    if data is None:
        return None
    return load_data(data, model.inputs, samples=options.samples, seed=options.seed)


def _task(options: Options) -> Tasks:
    return regression(options.task) if options.objective == "regression" else options.task


def _by_differences(
    model: Model, samples: Calibration, options: Options, exact_up_to: int
) -> Importance:
    estimator, task, runtime = options.estimator, _task(options), options.runtime

    def measure() -> Arrays:
        return finite_difference(
            model,
            samples,
            estimator=estimator,
            task=task,
            exact_up_to=exact_up_to,
            runtime=runtime,
            track=options.track,
        ).arrays()

    settings = (estimator, task, exact_up_to, runtime)
    measured = Importance.of_arrays(
        remembered(options.cache, "differences", model, [samples], settings, measure)
    )
    return measured if options.damping is None else replace(measured, damping=options.damping)


def _check(model: Model, samples: Calibration | None, options: Options, as_json: bool) -> None:
    """Print how well the two methods agree; an error if they do not."""
    assert samples is not None
    found = check(
        model,
        samples,
        estimator=options.estimator,
        task=_task(options),
        runtime=options.runtime,
        track=options.track,
    )
    print_document(as_json, theory.check_data(found), theory.check_table(found))
    apart = [each.name for each in found if not each.agrees]
    if apart:
        raise VerificationError(
            f"autodiff and finite differences differ by more than {AGREE:.0%} in "
            f"{len(apart)} of {len(found)} weights: {', '.join(apart[:5])}"
            f"{', …' if len(apart) > 5 else ''}. A network with many kinks can do that to finite "
            "differences; try --samples 8. If it remains, this is a bug: report it with the model, "
            "and measure with --method finite-difference."
        )
