"""The terminal: results on stdout, everything else on stderr."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
WIDTH = 120
"""Columns where the output is no terminal."""


def stdout() -> Console:
    """Where results go."""
    return Console(
        width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False, emoji=False
    )


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
