"""The commands, one file each: parse, call, print."""

import click

from onnxrd.cli.commands import (
    bound,
    compress,
    curve,
    evaluate,
    importance,
    inspect,
    pack,
    prune,
    quantize,
    unpack,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="onnxrd")
def onnxrd() -> None:
    """Compress ONNX models by rate-distortion theory, and measure the damage.

    \b
    onnxrd inspect model.onnx
    onnxrd compress model.onnx -o small.onnx --max-kl 0.01 --data calib.npz
    onnxrd quantize model.onnx -o small.onnx --clusters 16 --data calib.npz
    onnxrd evaluate model.onnx small.onnx --data eval.npz
    onnxrd curve model.onnx -o curve --data calib.npz
    """


for command in (
    compress.compress,
    inspect.inspect,
    importance.importance,
    quantize.quantize,
    prune.prune,
    evaluate.evaluate_command,
    curve.curve,
    bound.bound,
    pack.pack,
    unpack.unpack,
):
    onnxrd.add_command(command)
