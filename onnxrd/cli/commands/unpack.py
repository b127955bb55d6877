"""onnxrd unpack: a packed model as it was."""

from pathlib import Path

import click

from onnxrd import archive
from onnxrd.cli import parameters
from onnxrd.cli.console import print_document
from onnxrd.report import packed


@click.command()
@click.argument("packed_model", metavar="ARCHIVE", type=parameters.FILE)
@click.option("-o", "--output", type=parameters.FILE, required=True, help="Model to write.")
@click.option(
    "--max-size",
    type=click.IntRange(min=0),
    metavar="BYTES",
    help="Refuse archives of more. [default: 1 GiB, or 64 times the archive if that is more]",
)
@parameters.common
def unpack(
    packed_model: Path,
    output: Path,
    max_size: int | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Restore the model in ARCHIVE, byte for byte.

    External data go beside it, under the names that the model has for them.

    \b
    onnxrd unpack small.onnxrd -o small.onnx
    """
    result = archive.unpack(packed_model, output, max_size=max_size)
    print_document(as_json, packed.packed_data(result), packed.unpacked_line(result))
