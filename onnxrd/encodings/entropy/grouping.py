"""Which weights share a stream, and how many codes a symbol stands for."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxrd.encodings.entropy import automaton
from onnxrd.encodings.entropy.decoder import apart, fragments, kind_of
from onnxrd.encodings.entropy.estimate import entropy
from onnxrd.encodings.entropy.numerals import STATE, Numerals
from onnxrd.encodings.entropy.stream import Book, Stream, best_stream, code_counts
from onnxrd.encodings.fragment import Fragment, load_nbytes, together_nbytes
from onnxrd.encodings.slot import Slot
from onnxrd.encodings.wire import function_nbytes
from onnxrd.quantizers import Quantized

MOST_STREAMS = 8
"""Each takes nodes, and onnxruntime's time for folding grows faster than their number."""

STREAM_NBYTES = 220
"""What a stream takes besides codes and table, about."""

STEP = 0.5
"""Bytes of a file that a step of a walk fewer is worth: two operators that are folded at load."""

MANY = 1 << 24
"""Weights of a stream, unless it is a single one: eleven bytes of memory each when it is priced."""


def encode(quantized: Quantized, slot: Slot) -> Fragment:
    """A single weight in a stream of its own."""
    assert isinstance(quantized, Book)
    return entropy_coded({slot.output: quantized}, {slot.output: slot})[slot.output]


def entropy_coded(
    books: Mapping[str, Book],
    slots: Mapping[str, Slot],
    *,
    turn: int = 0,
    most: int = MOST_STREAMS,
    lean: bool = False,
) -> dict[str, Fragment]:
    """All these weights in as few bytes of streams as found.

    Args:
        books: name of the weight → its codes and levels; all accepted.
        slots: name of the weight → its place.
        turn: when to decode them, see `onnxrd.encodings.turns`.
        most: so many streams.
        lean: in the least memory instead of the fewest bytes.
    """
    groups = [part for names in grouped(books, most) for part in _parted(names, books)]
    streams = _streams(groups, slots, lean)
    trials: list[tuple[float, dict[str, Fragment]]] = []
    for steps in automaton.STEPS:
        for way, walks in ((fragments, 1), (apart, len(streams))):
            found = way(streams, steps, turn)
            nbytes = together_nbytes(found.values()) + STEP * steps * walks
            trials.append((load_nbytes(found.values()) if lean else nbytes, found))
    return min(trials, key=lambda trial: trial[0])[1]


def _streams(
    groups: Sequence[Mapping[str, Book]], slots: Mapping[str, Slot], lean: bool
) -> list[Stream]:
    """A stream of each group, all by the code that takes fewer bytes, or less memory if `lean`."""
    huffman = [best_stream(group, slots, numerals=False, lean=lean) for group in groups]
    if lean:
        return huffman
    numerals = [best_stream(group, slots, numerals=True) for group in groups]
    return min(huffman, numerals, key=_worth)


def _worth(streams: Sequence[Stream]) -> float:
    """About how many bytes streams take, and what their states are worth."""
    opset, numerals = streams[0].slots[0].opset, isinstance(streams[0].code, Numerals)
    function = function_nbytes(automaton.tables(opset, kind_of(streams), numerals))
    return function + sum(stream.nbytes + STATE * stream.code.states for stream in streams)


def _parted(names: Sequence[str], books: Mapping[str, Book]) -> list[dict[str, Book]]:
    """Weights of a stream, in several streams if they are too many to be priced at a time."""
    parts: list[dict[str, Book]] = [{}]
    size = 0
    for name in names:
        size += math.prod(books[name].shape)
        if size > MANY and parts[-1]:
            parts.append({})
            size = math.prod(books[name].shape)
        parts[-1][name] = books[name]
    return parts


def grouped(books: Mapping[str, Book], most: int = MOST_STREAMS) -> list[list[str]]:
    """Names of weights that share a stream, by joining those whose codes are distributed alike.

    Begins with a stream for each and joins two as long as that saves bytes, or there are more than
    `most`; bytes are reckoned from entropies.
    """
    names = list(books)
    groups = [[name] for name in names]
    counts = _aligned_counts([books[name] for name in names])
    while len(groups) > 1:
        merged, saved = _best_merge(counts)
        if saved <= 0 and len(groups) <= most:
            break
        first, second = merged
        groups[first] += groups.pop(second)
        counts[first] += counts[second]
        counts = np.delete(counts, second, axis=0)
    return [
        sorted(group, key=names.index) for group in sorted(groups, key=lambda g: names.index(g[0]))
    ]


def _aligned_counts(books: Sequence[Book]) -> NDArray[np.int64]:
    """[weights, span], how often each weight has each code, counted from its zero."""
    found = [code_counts(book) for book in books]
    below = max(zero for _, zero in found)
    above = max(len(counts) - zero for counts, zero in found)
    aligned = np.zeros((len(books), below + above), np.int64)
    for row, (counts, zero) in zip(aligned, found):
        row[below - zero :][: len(counts)] = counts
    return aligned


def _nbytes(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """[*], about how many bytes streams of codes with these counts [*, span] take."""
    table = 2 * np.count_nonzero(counts, axis=-1) + STREAM_NBYTES
    return np.asarray(entropy(counts) / 8 + table)


def _best_merge(counts: NDArray[np.int64]) -> tuple[tuple[int, int], float]:
    """The two rows to add that save the most bytes, first < second, and how many they save."""
    alone = _nbytes(counts)
    best, pair = -np.inf, (0, 1)
    for first in range(len(counts) - 1):
        saved = alone[first] + alone[first + 1 :] - _nbytes(counts[first] + counts[first + 1 :])
        second = int(saved.argmax())
        if saved[second] > best:
            best, pair = float(saved[second]), (first, first + 1 + second)
    return pair, best
