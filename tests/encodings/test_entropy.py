"""Entropy-coded streams: the code is optimal, the bits are near the entropy, decoding is exact."""

import heapq
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from encoded import VERSIONS, codebook, model, run, same_bits, session, sparse
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnxrd import encodings
from onnxrd.encodings.entropy import decoder, lanes
from onnxrd.encodings.entropy.automaton import STEPS
from onnxrd.encodings.entropy.code import huffman_code, huffman_lengths
from onnxrd.encodings.entropy.estimate import entropy
from onnxrd.encodings.entropy.grid import spacing
from onnxrd.encodings.entropy.grouping import MOST_STREAMS, grouped
from onnxrd.encodings.entropy.numerals import numeral_code
from onnxrd.encodings.entropy.stream import stream_of
from onnxrd.encodings.entropy.symbols import MOST, symbols
from onnxrd.errors import SettingError
from onnxrd.quantizers import Codebook

rng = np.random.default_rng(4)
counts = st.lists(st.integers(0, 1000), min_size=2, max_size=60)


def grid(shape, step, dtype=np.float32, scale=1.0, density=None):
    """Gaussian weights, or Laplacian ones, rounded to a uniform grid."""
    values = (density or rng.standard_normal)(size=shape)
    codes = np.rint(values / step).astype(int)
    levels = np.arange(min(0, codes.min()), max(0, codes.max()) + 1).astype(dtype)
    return Codebook((codes - int(levels[0])).astype(np.uint8), levels * dtype(step * scale))


@settings(deadline=None)
@given(counts)
def test_no_prefix_code_is_shorter(counts):
    """A merge of n counts costs their sum: Huffman's bits are the sum over all merges."""
    heap, bits = list(counts), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        bits += merged
        heapq.heappush(heap, merged)
    lengths = huffman_lengths(np.array(counts))
    assert (lengths * counts).sum() == bits
    assert sum(2.0**-length for length in lengths.tolist()) == 1


@settings(deadline=None)
@given(counts)
def test_canonical(counts):
    code = huffman_code(np.array(counts))
    words = [f"{w:0{n}b}" for w, n in zip(code.words, code.lengths)]
    for word in words:
        assert sum(other.startswith(word) for other in words) == 1
    assert [len(words[symbol]) for symbol in code.order] == sorted(code.lengths)
    assert "0" * code.longest in words
    assert len(code.inner) == 2 * (len(words) - 1)


@dataclass
class Words:
    """Words of given lengths, longer by as many bits where they begin a lane."""

    lengths: np.ndarray
    more: int

    def first(self, index):
        return self.lengths[index] + self.more


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=300), st.integers(0, 10))
def test_lanes_hold_whole_words(lengths, more):
    starts = lanes.cuts(Words(np.array(lengths), more), 64)
    assert starts[0] == 0
    assert starts[-1] == len(lengths)
    for first, last in pairwise(starts):
        assert more + sum(lengths[first:last]) <= 64
        assert last == len(lengths) or more + sum(lengths[first : last + 1]) > 64


def huffman_decoded(code, bits):
    """The symbols of a row of bits, by the code words."""
    symbols_of = {(int(n), int(w)): s for s, (n, w) in enumerate(zip(code.lengths, code.words))}
    found, length, word = [], 0, 0
    for bit in bits:
        length, word = length + 1, 2 * word + bit
        if (length, word) in symbols_of:
            found.append(symbols_of[length, word])
            length = word = 0
    return found


def numerals_decoded(code, bits):
    """The same by asymmetric numeral systems, from the frequencies alone."""
    size, f = sum(code.frequencies), [int(n) for n in code.frequencies]
    states = [(Fraction(2 * (n + i) + 1, n), s, n + i) for s, n in enumerate(f) for i in range(n)]
    slots = [(s, v) for _, s, v in sorted((int(k * 2**20), s, v) for k, s, v in states)]
    shared, found, v, tail = len(f) - 1 if code.rare_bits else None, [], 1, None
    for bit in bits:
        if tail is None:
            v = 2 * v + bit
            if v >= size:
                symbol, v = slots[v - size]
                tail = "" if symbol == shared else None
                if tail is None:
                    found.append(code.order[symbol])
        else:
            tail += str(bit)
            if len(tail) == code.rare_bits:
                found.append(code.order[shared + int(tail, 2)])
                tail = None
    return found


CODERS = {
    "huffman": (huffman_code, huffman_decoded),
    "numerals": (numeral_code, numerals_decoded),
}


@settings(deadline=None)
@given(st.data(), st.sampled_from(list(CODERS)))
def test_lanes_hold_the_symbols(data, coder):
    share = data.draw(st.lists(st.integers(1, 1000), min_size=2, max_size=40))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    size = data.draw(st.integers(1, 400))
    ids = rng.choice(len(share), size, p=np.array(share) / sum(share)).astype(np.uint16)
    make, decode = CODERS[coder]
    code = make(np.bincount(ids, minlength=len(share)))
    coded = code.coded(ids)
    packed, starts = lanes.packed(coded, 8), lanes.cuts(coded, 64)
    found = [decode(code, np.unpackbits(lane).tolist()) for lane in packed]
    assert [len(lane) for lane in found[:-1]] == np.diff(starts)[:-1].tolist()
    decoded = [symbol for lane in found for symbol in lane]
    assert decoded[:size] == ids.tolist()
    assert len(decoded) - size == lanes.spare_words(coded, starts[-2], 8)


@settings(deadline=None)
@given(counts)
def test_numerals_know_their_automaton(counts):
    code = numeral_code(np.array(counts))
    assert sum(code.frequencies) == 1 << code.head
    assert min(code.frequencies) >= 1
    assert sorted(code.order) == list(range(len(counts)))
    state = code.tables[1]
    assert code.shortest == code.head - int(np.floor(np.log2(state.max())))
    assert (code.shortest >= 1) and (state < 1 << code.head).all()


def test_numerals_are_near_the_entropy():
    for spread in (0.8, 2.0, 6.0):
        values = np.rint(np.random.default_rng(0).laplace(size=200_000) * spread).astype(int)
        _, ids, counts = np.unique(values, return_inverse=True, return_counts=True)
        coded = numeral_code(counts).coded(ids.astype(np.uint16))
        bits = float(entropy(counts))
        assert bits < coded.lengths.sum(dtype=np.int64) < bits + 0.02 * len(ids)


@settings(deadline=None)
@given(st.lists(st.integers(-3, 5), min_size=1, max_size=60), st.integers(1, 16))
def test_symbols_stand_for_runs(codes, run_length):
    parts = [np.array(codes[:7], np.int16), np.array(codes[7:] or [0], np.int16)]
    found = symbols(parts, run_length)
    given_codes = np.concatenate(parts).tolist()
    decoded = found.runs[found.ids].ravel()
    assert decoded[: len(given_codes)].tolist() == given_codes
    assert not decoded[len(given_codes) :].any()
    assert (np.bincount(found.ids, minlength=len(found.counts)) == found.counts).all()


@st.composite
def networks(draw):
    seed = np.random.default_rng(draw(st.integers(0, 2**32)))
    books = {}
    for index in range(draw(st.integers(1, 5))):
        shape = tuple(draw(st.lists(st.integers(1, 12), max_size=4)))
        dtype = draw(st.sampled_from([np.float32, np.float16, np.float64]))
        levels = draw(st.sampled_from([1, 2, 3, 7, 20, 256, 300]))
        values = (seed.permutation(3 * levels)[:levels] - levels).astype(dtype)
        if draw(st.booleans()):
            values = np.arange(levels) - draw(st.integers(0, levels - 1))
        values = np.sort(values.astype(dtype)) * dtype(0.37)
        share = seed.dirichlet(np.full(levels, draw(st.sampled_from([0.02, 1.0, 100.0]))))
        codes = seed.choice(levels, shape, p=share)
        books[f"w{index}"] = Codebook(
            codes.astype(np.uint8 if levels <= 256 else np.uint16), values
        )
    return books


@settings(max_examples=40, deadline=None)
@given(
    networks(),
    st.sampled_from([v for v in VERSIONS if v[0] >= 11]),
    st.integers(1, 16),
    st.sampled_from(list(STEPS)),
    st.booleans(),
    st.integers(1, 3),
)
def test_exact_and_priced(books, version, run_length, steps, numerals, several):
    original = model({name: book.dequantize() for name, book in books.items()}, *version)
    slots = encodings.slots(original, books)
    names = np.array_split(list(books), several)
    streams = [
        stream_of({n: books[n] for n in some}, slots, run_length, numerals=numerals)
        for some in names
        if len(some)
    ]
    assume(None not in streams)
    fragments = decoder.fragments(streams, steps)
    written = original.clone()
    encodings.write(written, fragments)
    data = ir.to_proto(written).SerializeToString()
    assert len(data) == encodings.FileSize(original, slots)(fragments.values())
    for level in ("disable", "all"):
        for result, book in zip(run(data, level), books.values()):
            assert same_bits(result, book.dequantize())


def compressed(books, fragments_of):
    original = model({name: book.dequantize() for name, book in books.items()})
    slots = encodings.slots(original, books)
    fragments = fragments_of(books, slots)
    written = original.clone()
    encodings.write(written, fragments)
    return ir.to_proto(written).SerializeToString(), fragments


@pytest.mark.parametrize(("step", "excess"), [(0.4, 0.02), (0.8, 0.015), (1.5, 0.015), (4.0, 0.2)])
def test_near_the_entropy(step, excess):
    book = grid((1000, 500), step)
    _, fragments = compressed({"w": book}, encodings.entropy_coded)
    bits = entropy(book.counts)
    nbytes = encodings.together_nbytes(fragments.values())
    assert bits / 8 < nbytes < bits / 8 * (1 + excess) + 3500
    estimate = encodings.estimated_nbytes(book.counts)
    if step < 2:
        assert estimate == pytest.approx(nbytes - 2500, rel=0.02)
    assert fragments["w"].portion == pytest.approx(bits / 8, rel=excess)


def test_every_node_is_folded(tmp_path):
    books = {f"w{i}": grid((64, 50), step) for i, step in enumerate((0.3, 0.9, 2.0))}
    data, _ = compressed(books, encodings.entropy_coded)
    session(data, "basic", str(tmp_path / "folded.onnx"))
    assert {n.op_type for n in onnx.load(tmp_path / "folded.onnx").graph.node} == {"Mul"}


def test_weights_alike_share_a_stream_and_others_do_not():
    alike = {f"a{i}": grid((200, 100), 0.5, scale=2.0**i) for i in range(4)}
    coarse = {f"b{i}": grid((300, 400), 3.0) for i in range(3)}
    assert grouped(alike | coarse) == [list(alike), list(coarse)]
    many = {f"c{i}": grid((100, 1000), 0.05 * 1.5**i) for i in range(12)}
    assert len(grouped(many)) <= MOST_STREAMS


@pytest.mark.parametrize("way", [decoder.fragments, decoder.apart])
def test_streams_are_walked_through_together_or_apart(way):
    books = {f"{letter}{i}": grid((50, 40), 0.3 + i) for i in range(4) for letter in "ab"}

    def coded(books, slots):
        parts = [{n: b for n, b in books.items() if n[0] == letter} for letter in "ab"]
        streams = [
            stream_of(part, slots, 2, numerals=numerals)
            for part, numerals in zip(parts, (False, True))
        ]
        return way(streams, 64)

    data, fragments = compressed(books, coded)
    together = way is decoder.fragments
    assert ("q0-" in fragments["b0"].shared) == together
    graph = onnx.load_from_string(data).graph
    assert ("several64" in [node.op_type for node in graph.node]) == together
    for level in ("disable", "all"):
        for result, book in zip(run(data, level), books.values()):
            assert same_bits(result, book.dequantize())


def test_two_weights_alike_cost_little_more_than_their_entropy():
    books = {f"w{i}": grid((100, 90), 0.6, scale=1.1**i) for i in range(20)}
    one = encodings.together_nbytes(
        compressed({"w0": books["w0"]}, encodings.entropy_coded)[1].values()
    )
    all_of_them = encodings.together_nbytes(compressed(books, encodings.entropy_coded)[1].values())
    bits = sum(float(entropy(book.counts)) for book in list(books.values())[1:])
    assert all_of_them - one < bits / 8 * 1.02 + 19 * 60


def test_streams_take_over_where_they_are_smaller():
    small = {"tiny": codebook(rng, (5, 2), 10)}
    big = {"big": grid((500, 400), 0.7), "even": codebook(rng, (256, 256), 16)}
    data, fragments = compressed(big | small, encodings.cheapest_together)
    assert fragments["big"].encoding == "entropy"
    assert fragments["even"].encoding != "dense"
    original = model({n: q.dequantize() for n, q in (big | small).items()})
    slots = encodings.slots(original, big | small)
    apart = [encodings.cheapest(q, slots[n], paid=()) for n, q in (big | small).items()]
    assert encodings.together_nbytes(fragments.values()) < encodings.together_nbytes(apart)
    for result, book in zip(run(data, "all"), (big | small).values()):
        assert same_bits(result, book.dequantize())


def test_more_levels_than_a_stream_takes_are_in_no_stream():
    many = codebook(rng, (170, 100), MOST + 1)
    data, fragments = compressed({"w": many}, encodings.cheapest_together)
    assert fragments["w"].encoding != "entropy"
    assert same_bits(run(data, "all")[0], many.dequantize())


def test_forced_where_it_is_illegal():
    weight = sparse(rng, (20, 20), 0.2)
    original = model({"w": weight.values})
    with pytest.raises(SettingError, match=r"'huffman'.*dense, gap"):
        encodings.cheapest_together(
            {"w": weight}, encodings.slots(original, ["w"]), force="huffman"
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spacing_of_a_grid(dtype):
    levels = np.arange(-3, 9).astype(dtype) * dtype(0.1)
    assert spacing(levels) == dtype(0.1)
    assert spacing(levels[:4]) == dtype(0.1)
    assert spacing(levels[[0, 1, 3, 4]]) is None
    assert spacing(np.nextafter(levels, 1)) is None
    assert spacing(levels.astype(np.float16)) is None


def test_same_bytes_twice():
    books = {f"w{i}": grid((64, 50), step) for i, step in enumerate((0.3, 0.9, 2.0))}
    first, second = (compressed(books, encodings.cheapest_together)[0] for _ in range(2))
    assert first == second
