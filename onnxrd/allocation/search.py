"""Find the slope at which a measured quantity meets its limit, in few trials."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

STEP = 1.6
"""How far, in log slope, the first steps go while the limit has been seen from one side only."""


@dataclass(frozen=True)
class Trial(Generic[T]):
    """One slope tried.

    Attributes:
        position: log slope.
        value: what was measured there.
        outcome: whatever comes with it.
    """

    position: float
    value: float
    outcome: T


def search(
    attempt: Callable[[float], tuple[float, T]],
    start: float,
    limit: float,
    *,
    rising: bool,
    within: float,
    bounds: tuple[float, float],
    most: int = 9,
) -> list[Trial[T]]:
    """Try slopes until one keeps a limit and comes close to it.

    Args:
        attempt: slope → (what is limited, outcome).
        start: the first slope.
        limit: the largest allowed value.
        rising: whether the value rises with the slope (damage), or falls (bytes).
        within: a value in (limit · (1 - within), limit] ends the search.
        bounds: the least and the largest slope that make sense.
        most: trials at most.

    Returns: all trials, in the order in which they were made. None of them keeps the limit only if
        the best of the bounds does not.
    """
    trials: list[Trial[T]] = []
    low, high = (math.log(bound) for bound in bounds)
    position = min(max(math.log(start), low), high)
    for _ in range(most):
        value, outcome = attempt(math.exp(position))
        trials.append(Trial(position, value, outcome))
        if limit * (1 - within) < value <= limit:
            break
        safe = [t.position for t in trials if t.value <= limit]
        unsafe = [t.position for t in trials if t.value > limit]
        following = _next(trials, limit, safe, unsafe, rising, low, high)
        if any(abs(following - t.position) < 1e-4 for t in trials):
            break
        position = following
    return trials


def _next(
    trials: Sequence[Trial[Any]],
    limit: float,
    safe: list[float],
    unsafe: list[float],
    rising: bool,
    low: float,
    high: float,
) -> float:
    """Where to look next: between the nearest two that enclose the limit, or further out."""
    sign = 1 if rising else -1
    if not safe:
        edge = min(unsafe) if rising else max(unsafe)
        out = STEP * 2 ** (len(unsafe) - 1)
        guess = _secant(trials, limit)
        far = edge - sign * out
        if guess is not None and sign * (edge - guess) > 0.02:
            far = guess - sign * 0.05 if sign * (guess - far) > 0 else far
        return float(min(max(far, low), high))
    if not unsafe:
        edge = max(safe) if rising else min(safe)
        far = edge + sign * STEP * 2 ** (len(safe) - 1)
        guess = _secant(trials, limit)
        if guess is not None and sign * (guess - edge) > 0.02 and sign * (far - guess) > 0:
            far = guess
        return float(min(max(far, low), high))
    best = max(safe) if rising else min(safe)
    beyond = [p for p in unsafe if sign * (p - best) > 0]
    other = (min(beyond) if rising else max(beyond)) if beyond else best + sign * STEP
    guess = _between(trials, limit, best, other)
    inner, outer = best + 0.05 * (other - best), best + 0.9 * (other - best)
    return min(max(guess, min(inner, outer)), max(inner, outer))


def _secant(trials: Sequence[Trial[Any]], limit: float) -> float | None:
    """Where the line through the last two trials, in logarithms, meets the limit."""
    if len(trials) < 2 or min(trials[-1].value, trials[-2].value, limit) <= 0:
        return None
    (x0, y0), (x1, y1) = ((t.position, math.log(t.value)) for t in trials[-2:])
    if abs(y1 - y0) < 1e-9:
        return None
    return x1 + (math.log(limit) - y1) * (x1 - x0) / (y1 - y0)


def _between(trials: Sequence[Trial[Any]], limit: float, safe: float, unsafe: float) -> float:
    """Where the line between two trials meets the limit; the middle where logarithms fail."""
    values = {t.position: t.value for t in trials}
    inside, outside = values[safe], values.get(unsafe, math.nan)
    if not min(inside, outside, limit) > 0 or inside == outside:
        return (safe + unsafe) / 2
    share = math.log(limit / inside) / math.log(outside / inside)
    return safe + share * (unsafe - safe)
