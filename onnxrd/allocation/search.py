"""Find the slope at which a measured quantity meets its limit, in few trials."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

STEP = 1.6
"""How far, in log slope, the first steps go while the limit has been seen from one side only."""

NEAREST = 0.01
"""Log slopes nearer than that say nothing of how the value rises."""


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
    known: Mapping[float, float] | None = None,
    narrow: float = 0.0,
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
        known: slope → value, of trials made before. The search goes on from these, and makes the
            best one anew if it finds none that is better; without them, if it does not hold.
        narrow: a log slope that keeps the limit, and another so near that does not, end it, too.
        most: trials at most.

    Returns: all trials made, in order. None of them keeps the limit only if the best of the bounds
        does not.
    """
    low, high = (math.log(bound) for bound in bounds)
    slopes = {math.log(slope): slope for slope in known or {}}
    earlier = [Trial(p, known[s], None) for p, s in slopes.items() if known and low <= p <= high]
    seen: list[Trial[Any]] = sorted(earlier, key=lambda trial: -_distance(trial.value, limit))
    made: list[Trial[T]] = []

    def attempted(position: float) -> float:
        value, outcome = attempt(slopes.get(position) or math.exp(position))
        made.append(Trial(position, value, outcome))
        seen[:] = [trial for trial in seen if trial.position != position] + made[-1:]
        return value

    def near(value: float) -> bool:
        return limit * (1 - within) < value <= limit

    def following() -> float:
        further_out = len(made) if earlier else len(made) - 1
        return _next(seen, limit, rising, STEP * 2**further_out, low, high)

    position = following() if seen else min(max(math.log(start), low), high)
    position = next((trial.position for trial in seen if near(trial.value)), position)
    while not near(attempted(position)) and len(made) < most:
        position = following()
        if any(abs(position - trial.position) < 1e-4 for trial in seen):
            break
        if _gap(seen, limit, rising) < narrow:
            break
    kept = [trial.position for trial in seen if trial.value <= limit]
    best = (max if rising else min)(kept, default=position)
    if kept and all(trial.position != best for trial in made):
        attempted(best)
    promised = any(trial.value <= limit for trial in earlier)
    if promised and all(trial.value > limit for trial in made):
        made += search(
            attempt,
            start,
            limit,
            rising=rising,
            within=within,
            bounds=bounds,
            narrow=narrow,
            most=most,
        )
    return made


def _gap(trials: Sequence[Trial[Any]], limit: float, rising: bool) -> float:
    """How far the next one beyond the limit is from the last one that keeps it."""
    sign = 1 if rising else -1
    best = max((sign * t.position for t in trials if t.value <= limit), default=-math.inf)
    beyond = (sign * t.position for t in trials if t.value > limit)
    return min((position for position in beyond if position > best), default=math.inf) - best


def _distance(value: float, limit: float) -> float:
    """How far a value is from its limit, in logarithms where there are any."""
    return abs(math.log(value / limit)) if min(value, limit) > 0 else math.inf


def _next(
    trials: Sequence[Trial[Any]],
    limit: float,
    rising: bool,
    out: float,
    low: float,
    high: float,
) -> float:
    """Where to look next: between the nearest two that enclose the limit, or further out."""
    safe = [t.position for t in trials if t.value <= limit]
    unsafe = [t.position for t in trials if t.value > limit]
    sign = 1 if rising else -1
    if not safe:
        edge = min(unsafe) if rising else max(unsafe)
        guess = _secant(trials, limit, rising)
        far = edge - sign * out
        if guess is not None and sign * (edge - guess) > 0.02:
            far = guess - sign * 0.05 if sign * (guess - far) > 0 else far
        return float(min(max(far, low), high))
    if not unsafe:
        edge = max(safe) if rising else min(safe)
        far = edge + sign * out
        guess = _secant(trials, limit, rising)
        if guess is not None and sign * (guess - edge) > 0.02 and sign * (far - guess) > 0:
            far = guess
        return float(min(max(far, low), high))
    best = max(safe) if rising else min(safe)
    beyond = [p for p in unsafe if sign * (p - best) > 0]
    other = (min(beyond) if rising else max(beyond)) if beyond else best + sign * STEP
    guess = _between(trials, limit, best, other)
    inner, outer = best + 0.05 * (other - best), best + 0.9 * (other - best)
    return min(max(guess, min(inner, outer)), max(inner, outer))


def _secant(trials: Sequence[Trial[Any]], limit: float, rising: bool) -> float | None:
    """Where the line through the last two trials, in logarithms, meets the limit.

    Damage rises about in proportion to the slope, so that a single trial is enough for a guess.
    """
    last = trials[-1]
    apart = [t for t in trials if abs(t.position - last.position) > NEAREST]
    if min(last.value, limit, *(t.value for t in apart[-1:])) <= 0:
        return None
    rest = math.log(limit / last.value)
    if not apart:
        return last.position + (rest + math.copysign(NEAREST, rest)) if rising else None
    run, rise = last.position - apart[-1].position, math.log(last.value / apart[-1].value)
    return None if abs(rise) < 1e-9 else last.position + rest * run / rise


def _between(trials: Sequence[Trial[Any]], limit: float, safe: float, unsafe: float) -> float:
    """Where the line between two trials meets the limit; the middle where logarithms fail."""
    values = {t.position: t.value for t in trials}
    inside, outside = values[safe], values.get(unsafe, math.nan)
    if not min(inside, outside, limit) > 0 or inside == outside:
        return (safe + unsafe) / 2
    share = math.log(limit / inside) / math.log(outside / inside)
    return safe + share * (unsafe - safe)
