"""onnxrd compress: to a target."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from onnxrd import pipeline
from onnxrd.allocation.target import Kind, Target, parse_share, parse_size
from onnxrd.cli import parameters
from onnxrd.cli.console import print_result
from onnxrd.graph.model import atomic_output
from onnxrd.pipeline.job import files_of
from onnxrd.report.pages import result_page

_TARGETS: dict[str, Kind] = {
    "target_size": "size",
    "target_ratio": "ratio",
    "bits": "bits",
    "max_kl": "kl",
    "max_error": "error",
    "max_drop": "drop",
}


@click.command()
@parameters.model
@click.option("--target-size", metavar="SIZE", help="Of the file, at most: 800k, 4MB, 4MiB.")
@click.option("--target-ratio", type=float, help="So many times smaller, at least.")
@click.option("--bits", type=float, help="Of the file for each of the original's numbers, at most.")
@click.option("--max-kl", type=float, help="KL divergence of the outputs, nats, at most.")
@click.option("--max-error", type=float, help="Squared error over squared norm of the outputs.")
@click.option("--max-drop", metavar="SHARE", help="Of accuracy, at most: 0.5% or 0.005.")
@click.option(
    "--report", type=parameters.FILE, metavar="PAGE.html", help="Show it layer by layer on a page."
)
@parameters.compression
@parameters.data
@parameters.samples(None)
@parameters.estimation
@parameters.common
def compress(
    model: Path,
    output: Path,
    report: Path | None,
    data: str | None,
    importance: Path | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Write the best file that keeps a target: the fewest bytes, or the least damage.

    Damage is measured on a quarter of the data, which nothing is fitted to.

    \b
    onnxrd compress model.onnx -o small.onnx --data calib.npz --max-kl 0.01
    onnxrd compress model.onnx -o small.onnx --data calib.npz --target-size 400k
    onnxrd compress model.onnx -o small.onnx --data calib.npz --max-drop 0.5%
    """
    if data is None:
        raise click.UsageError("--data is needed: damage is measured, not guessed.")
    target, options = _target(rest), parameters.options(**rest)
    with _page(report, (model, output, *files_of(data, importance))) as page:
        result = pipeline.compress(
            model, output, target=target, data=data, importance=importance, options=options
        )
        if page:
            page.write_text(result_page(result), encoding="utf8")
    print_result(result, as_json, rest["quiet"], held_out=True)


def _page(path: Path | None, never: tuple[Path, ...]) -> AbstractContextManager[Path | None]:
    """Where to write the report, if one is wanted; what is wrong with its path is said at once."""
    return nullcontext() if path is None else atomic_output(path, never=never)


def _target(given: dict[str, Any]) -> Target:
    """The target asked for; takes it out of what is given."""
    values = {name: given.pop(name) for name in _TARGETS}
    chosen = {name: value for name, value in values.items() if value is not None}
    if len(chosen) != 1:
        names = ", ".join("--" + name.replace("_", "-") for name in _TARGETS)
        raise click.UsageError(f"give one target: {names}.")
    ((name, value),) = chosen.items()
    parse = {"target_size": parse_size, "max_drop": parse_share}.get(name, float)
    return Target(_TARGETS[name], parse(value))
