"""The terminal: results on stdout, everything else on stderr."""

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

import click
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from onnxrd.report import data as report_data
from onnxrd.report import tables
from onnxrd.report.result import Result

T = TypeVar("T")
WIDTH = 120
"""Columns where the output is no terminal."""


def stdout() -> Console:
    """Where results go: nowhere, if stdout was closed before we began."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return Console(width=None if is_terminal else WIDTH, highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    """Where progress, warnings and errors go."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def progress_bar(things: Iterable[T], what: str, total: int) -> Iterable[T]:
    """Pass things through and show how far they are, if stderr is a terminal."""
    console = stderr()
    if not console.is_terminal:
        yield from things
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        yield from progress.track(things, total=total, description=what)


def print_result(result: Result, as_json: bool, quiet: bool, *, held_out: bool = False) -> None:
    """Print what a compression did, see `tables.result_table`; warnings go to stderr."""
    print_warnings(() if quiet else result.warnings)
    table = tables.result_table(result, held_out=held_out)
    print_document(as_json, report_data.result_data(result), table)


def print_warnings(warnings: Iterable[str]) -> None:
    """Say what the user should know, on stderr."""
    for warning in warnings:
        stderr().print(f"warning: {warning}", style="bold yellow", soft_wrap=True)


def print_document(as_json: bool, document: Any, table: RenderableType) -> None:
    """Print a result: as JSON, or as a table."""
    if as_json:
        click.echo(report_data.to_json(document))
    else:
        stdout().print(table)
