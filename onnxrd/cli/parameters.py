"""Parameters that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from onnxrd.allocation.target import parse_size
from onnxrd.cli import tasks
from onnxrd.cli.console import progress_bar
from onnxrd.encodings import ENCODINGS
from onnxrd.graph.session import PROVIDERS, Runtime
from onnxrd.importance import DAMPING, Estimator
from onnxrd.options import Objective, Options
from onnxrd.progress import silent

Command = Callable[..., Any]
_BY_DEFAULT = click.core.ParameterSource.DEFAULT
FILE = click.Path(path_type=Path)
model = click.argument("model", type=FILE)


def _all(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


common = _all(
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
    click.option("-q", "--quiet", is_flag=True, help="No progress, no warnings."),
    click.option("-v", "--verbose", is_flag=True, help="Say more about what is going on."),
)

data = _all(
    click.option(
        "--data",
        metavar="DATA",
        help="Calibration data: an .npz keyed by input name (with `labels` if you have them), "
        "samples along the first axis; or, one call and one sample each, a folder of .npz files, "
        "test_data_set_* folders, or script.py:function.",
    ),
    click.option(
        "--seed",
        metavar="N",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Of every random choice.",
    ),
    click.option(
        "--threads",
        metavar="N",
        type=click.IntRange(min=0),
        default=0,
        help="For onnxruntime. [default: its own choice]",
    ),
    click.option(
        "--provider",
        type=click.Choice(list(PROVIDERS)),
        default="cpu",
        show_default=True,
        help="What onnxruntime runs networks on. cuda needs onnxruntime-gpu[cuda,cudnn].",
    ),
    tasks.task,
    tasks.output,
)


def samples(default: int | None) -> Callable[[Command], Command]:
    """How many samples to take; None stands for all."""
    return click.option(
        "--samples",
        metavar="N",
        type=click.IntRange(min=1),
        default=default,
        help=f"Take so many of the samples, at random. [default: {default or 'all'}]",
    )


cache = click.option(
    "--cache",
    metavar="DIR",
    type=FILE,
    help="Folder to keep importance in, and what else takes long and depends on MODEL and DATA "
    "alone, so that the next command on them is sooner done. `compress` begins with what it found "
    "for other targets.",
)


def _temperature(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    return value if value == "auto" else click.FLOAT.convert(value, parameter, context)


estimation = _all(
    cache,
    click.option(
        "--objective",
        type=click.Choice(get_args(Objective)),
        default="fisher",
        show_default=True,
        help="What the importance of a weight is: Fisher information, the same for squared "
        "error, squared gradients or second derivatives of the loss (with labels), or 1 (the "
        "baseline).",
    ),
    click.option(
        "--estimator",
        type=click.Choice(["rademacher", "exact", "sampled"]),
        default="rademacher",
        show_default=True,
        help="How the sum over classes is taken.",
    ),
    click.option(
        "--probes",
        metavar="N",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Random probes for each sample.",
    ),
    click.option(
        "--temperature",
        metavar="T|auto",
        callback=_temperature,
        default="1",
        show_default=True,
        help="Of the softmax over the classes; auto: the one that calibrates the labels, or if "
        "there are none the one with the least damage on samples held out.",
    ),
    click.option(
        "--damping",
        metavar="SHARE",
        type=click.FloatRange(min=0),
        help="Share of a tensor's mean importance that each of its weights gets on top. "
        f"[default: {DAMPING}; with labels the best one on samples held out]",
    ),
)

SHARE = click.FloatRange(min=0, max=1, min_open=True)

_MEASUREMENT = ("objective", "estimator", "probes", "temperature")


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    return None if value is None else int(parse_size(value))


choice = _all(
    click.option("--importance", type=FILE, help="Importance measured by `onnxrd importance`."),
    click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="Leave alone the weights of such names; may be given more than once.",
    ),
    click.option(
        "--encoding",
        type=click.Choice([encoding.name for encoding in ENCODINGS]),
        metavar="NAME",
        help=f"Store all weights this way: {', '.join(e.name for e in ENCODINGS)}. "
        "[default: the smallest for each]",
    ),
    click.option(
        "--keep-names",
        is_flag=True,
        help="Keep names of nodes and inner values, doc strings and the exporter's notes, for a "
        "pipeline that goes by them. [default: short names, no notes; only inputs, outputs and "
        "compressed weights, as values, keep their names]",
    ),
)

compression = _all(
    click.option("-o", "--out", "output", type=FILE, required=True, help="File to write."),
    choice,
    click.option(
        "--max-load-memory",
        metavar="SIZE",
        callback=_size,
        help="What onnxruntime may take when it loads the file, about; more for stronger "
        "encodings.  [default: 1GiB, or 4 times the network in float32]",
    ),
    click.option("--force", is_flag=True, help="Write the output even if it is not smaller."),
)


def given(*names: str) -> list[str]:
    """Those parameters of the present command that the user has set."""
    context = click.get_current_context()
    return [n for n in names if context.get_parameter_source(n) is not _BY_DEFAULT]


def options(**chosen: Any) -> Options:
    """The shared settings of a command line.

    Raises:
        UsageError: how importance is measured, although it is given.
    """
    context = click.get_current_context()
    measuring = given(*_MEASUREMENT)
    if context.params.get("importance") is not None and measuring:
        raise click.UsageError(f"--{measuring[0]} has no effect: --importance is measured already.")
    temperature, auto = chosen["temperature"], chosen["temperature"] == "auto"
    estimator = Estimator(
        chosen["estimator"], chosen["probes"], 1.0 if auto else temperature, chosen["seed"]
    )
    return Options(
        objective=chosen["objective"],
        estimator=estimator,
        temperature="auto" if auto else None,
        damping=chosen["damping"],
        task=chosen["task"],
        samples=chosen["samples"],
        seed=chosen["seed"],
        exclude=chosen.get("exclude", ()),
        encoding=chosen.get("encoding"),
        max_load_memory=chosen.get("max_load_memory"),
        keep_names=chosen.get("keep_names", False),
        force=chosen.get("force", False),
        cache=chosen["cache"],
        runtime=Runtime(chosen["threads"], chosen["provider"]),
        track=silent if chosen["quiet"] else progress_bar,
    )
