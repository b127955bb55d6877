"""onnxrd curve: many sizes and methods in one picture."""

from pathlib import Path
from typing import Any

import click

from onnxrd import pipeline
from onnxrd.cli import parameters
from onnxrd.cli.console import print_document, print_warnings
from onnxrd.report.curve import curve_data, curve_table


@click.command()
@parameters.model
@click.option(
    "-o", "--out", "output", type=parameters.FILE, required=True, metavar="DIR", help="Folder."
)
@click.option(
    "--eval",
    "evaluation",
    metavar="DATA",
    help="Measure on these samples, in any form of --data. [default: a quarter of DATA, held out]",
)
@click.option(
    "--points",
    type=click.IntRange(min=2),
    default=10,
    show_default=True,
    help="How many files of `onnxrd compress`, from next to no damage to much.",
)
@click.option("--keep", is_flag=True, help="Leave the compressed networks in DIR, too.")
@parameters.choice
@parameters.data
@parameters.samples(None)
@parameters.estimation
@parameters.common
def curve(
    model: Path,
    output: Path,
    evaluation: str | None,
    points: int,
    keep: bool,
    data: str | None,
    importance: Path | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Compress MODEL to many sizes, by several methods, and draw bytes against damage.

    Every file is written, verified and measured on data that nothing is fitted to. DIR gets
    curve.html, a report with every layer, and curve.csv, curve.json and curve.png.

    \b
    onnxrd curve model.onnx -o curve --data calib.npz
    onnxrd curve model.onnx -o curve --data calib.npz --eval eval.npz --keep
    """
    if data is None:
        raise click.UsageError("--data is needed: damage is measured, not guessed.")
    drawn = pipeline.curve(
        model,
        output,
        data=data,
        evaluation=evaluation,
        points=points,
        keep=keep,
        importance=importance,
        options=parameters.options(**rest),
    )
    if not rest["quiet"]:
        print_warnings(drawn.warnings)
    print_document(as_json, curve_data(drawn), curve_table(drawn, output))
