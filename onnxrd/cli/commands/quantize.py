"""onnxrd quantize: codebooks of a few levels."""

from pathlib import Path
from typing import Any

import click

from onnxrd import pipeline
from onnxrd.cli import parameters
from onnxrd.cli.console import print_result


@click.command()
@parameters.model
@click.option(
    "--clusters",
    metavar="K",
    type=click.IntRange(2, 65536),
    default=16,
    show_default=True,
    help="Levels for each weight tensor.",
)
@click.option(
    "--ratio",
    metavar="SHARE",
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
    print_result(result, as_json, rest["quiet"])
