"""onnxrd pack: the smallest form for transport."""

from pathlib import Path

import click

from onnxrd import archive
from onnxrd.cli import parameters
from onnxrd.cli.console import print_document, progress_bar
from onnxrd.progress import silent
from onnxrd.report import packed


@click.command()
@parameters.model
@click.option("-o", "--output", type=parameters.FILE, required=True, help="Archive to write.")
@parameters.common
def pack(model: Path, output: Path, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Pack MODEL and its external data into one small archive.

    \b
    onnxrd pack small.onnx -o small.onnxrd
    onnxrd unpack small.onnxrd -o small.onnx
    """
    result = archive.pack(model, output, track=silent if quiet else progress_bar)
    print_document(as_json, packed.packed_data(result), packed.packed_line(result))
