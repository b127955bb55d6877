"""onnxrd quantize: few levels, of codebooks or grids."""

from pathlib import Path
from typing import Any

import click

from onnxrd import pipeline
from onnxrd.cli import parameters
from onnxrd.cli.console import print_result
from onnxrd.pipeline.codebooks import CLUSTERS


@click.command()
@parameters.model
@click.option(
    "--clusters",
    metavar="K",
    type=click.IntRange(2, 65536),
    help=f"Levels for each weight tensor. [default: {CLUSTERS}]",
)
@click.option(
    "--ratio",
    metavar="SHARE",
    type=parameters.SHARE,
    default=1.0,
    help="Share of the weights to keep; the others become zero.",
)
@click.option(
    "--bits",
    metavar="B",
    type=float,
    help="Instead of clusters: entropy-coded grids of at most so many bits a weight on average.",
)
@click.option(
    "--trellis",
    is_flag=True,
    help="With --bits: two grids and a trellis. .1 to .5 bits fewer, but slower to load.",
)
@click.option(
    "--vector",
    metavar="D",
    type=click.IntRange(2, 8),
    help="Let D weights in a row share a code: each cluster is a vector. Small weights get shorter "
    "ones.",
)
@parameters.compression
@parameters.data
@parameters.samples(512)
@parameters.estimation
@parameters.common
def quantize(
    model: Path,
    output: Path,
    clusters: int | None,
    ratio: float,
    bits: float | None,
    trellis: bool,
    vector: int | None,
    data: str | None,
    importance: Path | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Give every weight tensor of MODEL a few levels: a codebook, or a grid.

    \b
    onnxrd quantize model.onnx -o small.onnx --clusters 16 --data calib.npz
    onnxrd quantize model.onnx -o small.onnx --clusters 8 --importance importance.npz
    onnxrd quantize model.onnx -o small.onnx --clusters 16 --ratio 0.5 --data calib.npz
    onnxrd quantize model.onnx -o small.onnx --bits 3 --trellis --data calib.npz
    onnxrd quantize model.onnx -o small.onnx --vector 4 --clusters 256 --data calib.npz
    """
    others = parameters.given("ratio", "bits", "trellis")
    if vector is not None and others:
        raise click.UsageError(f"--{others[0]} does not go with --vector: give --clusters only.")
    given = parameters.given("clusters", "ratio")
    if bits is not None and given:
        raise click.UsageError(f"--{given[0]} has no effect: --bits stands for grids.")
    result = pipeline.quantize(
        model,
        output,
        clusters=clusters,
        keep=ratio,
        bits=bits,
        trellis=trellis,
        vector=vector,
        data=data,
        importance=importance,
        options=parameters.options(**rest),
    )
    print_result(result, as_json, rest["quiet"])
