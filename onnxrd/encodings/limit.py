"""Encodings that are decoded within a limit of memory, for the fewest bytes more."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from onnxrd.encodings.fragment import Fragment, Steps, load_nbytes, passing_nbytes

Fragments = Mapping[str, Fragment]


def within(
    limit: int,
    best: Fragments,
    table: Mapping[str, Sequence[Fragment]],
    in_turns: Callable[[Sequence[str], int, bool], Fragments],
    most_turns: int,
) -> dict[str, Fragment]:
    """The same weights, decoded within so many bytes; if that cannot be, within the fewest.

    What is decoded by streams is decoded in more turns first, which costs some hundred bytes each,
    then by the code of the least memory. Then weights change to other encodings, first those that
    save the most memory for a byte.

    Args:
        limit: for `load_nbytes`.
        best: name of the weight → its fragment, of the fewest bytes.
        table: name of the weight → itself in other encodings, none of them in a stream.
        in_turns: weights in streams that are decoded in so many turns, and in the least memory.
        most_turns: that are possible.
    """
    chosen, turns, lean = dict(best), 1, False
    while (excess := load_nbytes(chosen.values()) - limit) > 0:
        streamed = [name for name, fragment in chosen.items() if fragment.portion]
        if streamed and turns < most_turns:
            turns *= 2
        elif streamed and not lean:
            lean = True
        else:
            leaner = _leaner(chosen, table, excess)
            if not leaner:
                break
            chosen |= leaner
            streamed = [name for name in streamed if name not in leaner]
        if streamed:
            chosen |= in_turns(streamed, turns, lean)
    return chosen


def _leaner(
    chosen: Fragments, table: Mapping[str, Sequence[Fragment]], excess: int
) -> dict[str, Fragment]:
    """Other fragments that save so many bytes in the turn that takes the most, if they can."""
    needs, passing = _needs(chosen), passing_nbytes(list(chosen.values()))
    heaviest = max(passing, key=lambda turn: passing[turn])
    prices = [
        ((other.nbytes - fragment.nbytes - fragment.portion) / saved, name, saved, other)
        for name, fragment in chosen.items()
        for other in table[name]
        if heaviest in fragment.turns and (saved := needs[name] - other.load_nbytes) > 0
    ]
    changed: dict[str, Fragment] = {}
    left = float(excess)
    for _, name, saved, other in sorted(prices, key=lambda price: price[:3]):
        if left <= 0:
            break
        if name not in changed:
            changed[name] = other
            left -= saved
    return changed


def _needs(chosen: Fragments) -> dict[str, float]:
    """Bytes of memory that each weight is decoded in, with its part of what a stream takes."""
    portions: Counter[str] = Counter()
    for fragment in chosen.values():
        portions.update(dict.fromkeys(fragment.shared, fragment.portion))
    return {
        name: fragment.load_nbytes
        + sum(
            part.load_nbytes * fragment.portion / portions[key]
            for key, part in fragment.shared.items()
            if isinstance(part, Steps) and fragment.portion
        )
        for name, fragment in chosen.items()
    }
