"""onnxrd prune: the weights that matter least become zero."""

from pathlib import Path
from typing import Any, Literal

import click

from onnxrd import pipeline
from onnxrd.cli import parameters
from onnxrd.cli.console import print_result


@click.command()
@parameters.model
@click.option(
    "--ratio",
    metavar="SHARE",
    type=parameters.SHARE,
    required=True,
    help="Share of weights to keep.",
)
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
    print_result(result, as_json, rest["quiet"])
