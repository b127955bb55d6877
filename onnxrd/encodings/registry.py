"""All encodings, and the cheapest of those that are legal."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from onnxrd.encodings.byte_codes import BYTE_CODES
from onnxrd.encodings.byte_lut import BYTE_LUT
from onnxrd.encodings.dense import DENSE
from onnxrd.encodings.encoding import Encoding
from onnxrd.encodings.entropy import ENTROPY, Book, accepts, entropy_coded, in_turns
from onnxrd.encodings.fill import FILL
from onnxrd.encodings.fragment import Fragment, together_nbytes
from onnxrd.encodings.gap import GAP
from onnxrd.encodings.limit import within
from onnxrd.encodings.native_int4 import NATIVE_INT4
from onnxrd.encodings.slot import Slot
from onnxrd.encodings.turns import MOST_TURNS, possible
from onnxrd.encodings.vector_codes import VECTOR_CODES
from onnxrd.encodings.word_lut import WORD_LUT
from onnxrd.errors import SettingError
from onnxrd.quantizers import Codebook, Quantized

ENCODINGS: tuple[Encoding, ...] = (
    DENSE,
    FILL,
    NATIVE_INT4,
    BYTE_LUT,
    BYTE_CODES,
    WORD_LUT,
    VECTOR_CODES,
    GAP,
    ENTROPY,
)
"""Of equally cheap ones the first is taken: the simplest decoder."""


def options(quantized: Quantized, slot: Slot, *, force: str | None = None) -> tuple[Fragment, ...]:
    """The weight in every encoding that is legal in its model, in the order of `ENCODINGS`.

    Levels that no weight has are dropped first. Entropy coding is for weights together: among the
    options of a single one it is only if asked for.

    Args:
        quantized: the weight.
        slot: its place.
        force: name of the only encoding to consider.

    Raises:
        SettingError: `force` is not legal here.
    """
    quantized = _without_unused_levels(quantized)
    legal = [e for e in ENCODINGS if e.accepts(quantized, slot)]
    if force is None:
        legal = [e for e in legal if e is not ENTROPY]
    else:
        names = ", ".join(e.name for e in legal)
        legal = [e for e in legal if e.name == force]
        if not legal:
            raise SettingError(
                f"weight {slot.output!r} cannot be stored as {force!r} in a model of opset "
                f"{slot.opset} and IR version {slot.ir_version}. Choose one of: {names}."
            )
    return tuple(encoding.encode(quantized, slot) for encoding in legal)


def cheapest(
    quantized: Quantized,
    slot: Slot,
    *,
    force: str | None = None,
    paid: Collection[str] | None = None,
) -> Fragment:
    """The encoding of one weight that takes the fewest bytes.

    Args:
        quantized: the weight.
        slot: its place in its model.
        force: name of the encoding to take instead.
        paid: names of shared parts that are in the model anyway; None: all of them are.

    Returns:
        Its fragment; of equally cheap ones the first in `ENCODINGS`.

    Raises:
        SettingError: `force` is not legal here; the message says what would be.
    """
    return min(options(quantized, slot, force=force), key=lambda f: _price(f, paid))


def cheapest_together(
    quantized: Mapping[str, Quantized], slots: Mapping[str, Slot], *, force: str | None = None
) -> dict[str, Fragment]:
    """The encodings of all weights of a model that take the fewest bytes together.

    What is shared is paid once, so that the cheapest for each weight need not be the cheapest for
    all: a function of 400 bytes is not worth a single small weight. Starts with each weight's own
    best and gives up one shared part after another as long as the sum falls, which may end where it
    is dearer than if each weight had paid for all it needs: then that is taken. Then entropy-coded
    streams take over the weights that are smaller there.

    Raises:
        SettingError: `force` is not legal for one of the weights.
    """
    books = _books(quantized, slots)
    if force == ENTROPY.name and len(books) == len(quantized):
        return entropy_coded(books, slots)
    best = _cheapest_apart(quantized, slots, force)
    return best if force else _with_streams(best, books, slots)


def leaner(
    fragments: Mapping[str, Fragment],
    quantized: Mapping[str, Quantized],
    slots: Mapping[str, Slot],
    *,
    load_limit: int,
) -> dict[str, Fragment]:
    """The same weights, decoded in less memory for the fewest bytes more; see `within`.

    Args:
        fragments: the weights as `cheapest_together` encoded them.
        quantized: the weights.
        slots: their places.
        load_limit: bytes of memory for decoding (`load_nbytes`); the least there is, if that is not
            enough.
    """
    books = _books(quantized, slots)
    table = {name: options(q, slots[name]) for name, q in quantized.items()}

    def streams(names: Sequence[str], turns: int, lean: bool) -> dict[str, Fragment]:
        return in_turns({name: books[name] for name in names}, slots, turns, lean=lean)

    most = MOST_TURNS if all(map(possible, slots.values())) else 1
    return within(load_limit, fragments, table, streams, most)


def _books(quantized: Mapping[str, Quantized], slots: Mapping[str, Slot]) -> dict[str, Book]:
    """The weights that streams can take."""
    return {
        name: _trimmed(q)
        for name, q in quantized.items()
        if isinstance(q, Book) and accepts(q, slots[name])
    }


def _cheapest_apart(
    quantized: Mapping[str, Quantized], slots: Mapping[str, Slot], force: str | None
) -> dict[str, Fragment]:
    """See `cheapest_together`, but each weight encoded on its own."""
    table = {name: options(q, slots[name], force=force) for name, q in quantized.items()}
    banned: set[str] = set()
    best = _choose(table, banned)
    while True:
        in_use = sorted({key for fragment in best.values() for key in fragment.shared} - banned)
        trials = [(key, _choose(table, banned | {key})) for key in in_use]
        key, trial = min(trials, key=lambda t: together_nbytes(t[1].values()), default=("", best))
        if together_nbytes(trial.values()) >= together_nbytes(best.values()):
            break
        banned.add(key)
        best = trial
    alone = {name: min(some, key=lambda f: _price(f, ())) for name, some in table.items()}
    return min(best, alone, key=lambda chosen: together_nbytes(chosen.values()))


def _with_streams(
    best: dict[str, Fragment], books: Mapping[str, Book], slots: Mapping[str, Slot]
) -> dict[str, Fragment]:
    """Entropy-coded streams instead, for all the weights that take fewer bytes there."""
    inside = dict(books)
    while inside:
        streams = entropy_coded(inside, slots)
        trial = best | streams
        if together_nbytes(trial.values()) < together_nbytes(best.values()):
            return trial
        dear = {n for n, f in streams.items() if best[n].nbytes <= f.nbytes + f.portion}
        if not dear:
            break
        inside = {name: book for name, book in inside.items() if name not in dear}
    return best


def _choose(table: Mapping[str, tuple[Fragment, ...]], banned: set[str]) -> dict[str, Fragment]:
    """Each weight's cheapest that needs nothing banned; any, where all do."""
    return {
        name: min(fragments, key=lambda f: (not banned.isdisjoint(f.shared), f.nbytes))
        for name, fragments in table.items()
    }


def _price(fragment: Fragment, paid: Collection[str] | None) -> int:
    if paid is None:
        return fragment.nbytes
    return fragment.nbytes + sum(n for k, n in fragment.shared_nbytes.items() if k not in paid)


def _trimmed(quantized: Book) -> Book:
    """Without the levels at the ends that no weight has; those between keep the grid uniform."""
    if not isinstance(quantized, Codebook):
        return quantized
    used = np.flatnonzero(quantized.counts)
    if len(used) == len(quantized.levels):
        return quantized
    first, last = int(used[0]), int(used[-1])
    codes = quantized.codes - quantized.codes.dtype.type(first)
    return Codebook(codes, quantized.levels[first : last + 1])


def _without_unused_levels(quantized: Quantized) -> Quantized:
    if not isinstance(quantized, Codebook) or quantized.counts.all():
        return quantized
    used = quantized.counts > 0
    dtype = np.uint8 if used.sum() <= 256 else np.uint16
    renumbered = (np.cumsum(used) - 1).astype(dtype)
    return Codebook(renumbered[quantized.codes], quantized.levels[used])
