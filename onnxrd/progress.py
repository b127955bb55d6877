"""How long work says where it is: a function wrapped around the things it goes through."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Pass an iterable through and show its progress, as `rich.progress.track` does."""

    def __call__(self, things: Iterable[T], what: str, total: int) -> Iterable[T]:
        """Yield the things; `what` is being done to `total` of them."""
        ...


def silent(things: Iterable[T], what: str, total: int) -> Iterable[T]:
    """Show nothing."""
    return things
