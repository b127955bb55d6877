"""What the outputs of a network are: --task for all of them, --output for one."""

from typing import Any, get_args

import click

from onnxrd.distortion import ALL_OTHERS, Choice, Task, Tasks

_GIVEN = "onnxrd.outputs"


def _note(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Keep them for `--task`, which is worked on afterwards."""
    choices = {}
    for value in values:
        name, equals, choice = value.rpartition("=")
        if not equals or choice not in get_args(Choice):
            raise click.BadParameter(
                f"{value!r} is not NAME=task. Tasks are {', '.join(get_args(Choice))}."
            )
        choices[name] = choice
    context.meta[_GIVEN] = choices
    return values


def _joined(context: click.Context, parameter: click.Parameter, value: Task | None) -> Tasks:
    choices: dict[str, Any] = context.meta.get(_GIVEN, {})
    if not choices:
        return value
    return choices if value is None else {ALL_OTHERS: value, **choices}


output = click.option(
    "--output",
    "outputs",
    metavar="NAME=TASK",
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_note,
    help="What one of several outputs is: classification, regression, or ignore. Repeatable.",
)

task = click.option(
    "--task",
    type=click.Choice(get_args(Task)),
    callback=_joined,
    help="What the outputs are, if the end of the graph does not show it.",
)
