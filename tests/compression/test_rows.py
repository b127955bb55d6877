"""Rows of embeddings in sets that matter differently."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

import onnxrd
from onnxrd import load_data
from onnxrd.allocation.ladder import slope_for_bits
from onnxrd.compression.held_out import HeldOut
from onnxrd.compression.network import Network
from onnxrd.compression.quantization import Method
from onnxrd.compression.rows import counted, row_sets, sets_of
from onnxrd.graph.model import load
from onnxrd.graph.weights import find_weights
from onnxrd.pipeline.compressor import prepared_compressor
from tests import networks
from tests.networks import node

ROWS, COLUMNS = 4000, 64


def zipf(rng, samples, rows=ROWS, order=None):
    """[samples, 20], tokens of which the r-th has a probability like 1 / (r + 10)."""
    chances = 1 / (np.arange(rows) + 10)
    chances = (chances / chances.sum())[slice(None) if order is None else order]
    return rng.choice(rows, (samples, 20), p=chances), chances


def matters(sets):
    """[rows], importance of the set of each row."""
    whole = np.empty(sum(map(len, sets.rows)))
    for rows, importance in zip(sets.rows, sets.importance):
        whole[rows] = importance
    return whole


def found(tokens, importance=None, rows=ROWS, columns=COLUMNS):
    looked_up = counted([tokens], rows)
    if importance is None:
        importance = looked_up.total / tokens.shape[0]
    return sets_of(looked_up, importance, columns)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-9, 8), min_size=3, max_size=3), min_size=1, max_size=9))
def test_look_ups_are_counted_by_row_and_by_sample(samples):
    array = np.array(samples)
    result = counted([array[:4], array[4:]] if len(array) > 4 else [array], 9)
    for row in range(9):
        assert result.total[row] == sum(index % 9 == row for one in samples for index in one)
        assert result.samples[row] == sum(row in [i % 9 for i in one] for one in samples)


def test_an_index_a_sample_or_one_in_all():
    result = counted([np.array([1, 1, 2]), np.array(1)], 3)
    assert result.total.tolist() == result.samples.tolist() == [0, 3, 1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 400), st.integers(100, 3000), st.integers(4, 64))
def test_sets_hold_each_row_once_and_the_first_ones_are_in_order(seed, samples, rows, columns):
    rng = np.random.default_rng(seed)
    tokens, _ = zipf(rng, samples, rows, rng.permutation(rows))
    sets = found(tokens, rows=rows, columns=columns)
    if sets is None:
        return
    whole = np.concatenate(sets.rows)
    assert (np.sort(whole) == np.arange(rows)).all()
    still = whole[: len(whole) - len(sets.moved)]
    assert (np.diff(still) > 0).all()
    assert (sets.importance > 0).all()
    assert len(sets.rows) == len(sets.importance) > 1
    seen = sets.importance[sets.unmoved :]
    assert (np.diff(seen) >= 0).all()
    assert sets.importance[: sets.unmoved].max(initial=0) <= seen[0]


@pytest.mark.parametrize("sorted_by_frequency", [True, False])
def test_look_ups_of_new_text_are_foretold(sorted_by_frequency):
    """Within half of it for each set of enough rows, though most rows were never seen."""
    rng = np.random.default_rng(3)
    order = None if sorted_by_frequency else rng.permutation(ROWS)
    tokens, chances = zipf(rng, 200, order=order)
    sets = found(tokens)
    assert sets is not None and sets.unmoved >= (3 if sorted_by_frequency else 1)
    for rows, importance in zip(sets.rows, sets.importance):
        if len(rows) >= 200 or importance > sets.importance[sets.unmoved]:
            assert importance / (20 * chances[rows].mean()) == pytest.approx(1, rel=0.5)


def test_place_tells_nothing_where_tokens_are_not_sorted():
    rng = np.random.default_rng(4)
    tokens, _ = zipf(rng, 200, order=rng.permutation(ROWS))
    sets = found(tokens)
    unseen = sets.importance[: sets.unmoved]
    assert unseen.max() < 4 * unseen.min()


def test_rows_of_masked_tokens_do_not_count_for_more():
    """Half of the tokens are padding, which has no importance: the others keep theirs."""
    tokens, _ = zipf(np.random.default_rng(5), 200)
    looked_up = counted([tokens], ROWS)
    importance = looked_up.total / 200
    importance[0] = 0
    tokens[:, 10:] = 0
    sets, plain = found(tokens, importance), found(np.where(tokens == 0, 1, tokens))
    assert np.median(matters(sets) / matters(plain)) == pytest.approx(1, abs=0.5)


def test_positions_that_no_sample_reaches():
    """Nothing tells how rare they are: they count for less, but not for nothing."""
    tokens = np.tile(np.arange(300), (50, 1))
    sets = found(tokens, rows=1000)
    assert matters(sets)[:300] == pytest.approx(1)
    assert matters(sets)[300:] == pytest.approx(1 / 16)


def test_no_sets_where_all_rows_are_alike_or_few_are_seen():
    rng = np.random.default_rng(6)
    assert found(rng.integers(0, 100, (500, 20)), rows=100) is None
    assert found(zipf(rng, 100)[0], columns=2) is None
    assert found(zipf(rng, 1)[0]) is None


def embedding(path, *, moved=False, tied=False):
    """Embeddings of 20 tokens, 64 columns, pooled, and a linear layer of two; or indices moved."""
    nodes = [
        *([node("Add", ["ids", "one"], ["next"])] if moved else []),
        node("Gather", ["table", "next" if moved else "ids"], ["e"]),
        node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        *(
            [node("Gather", ["table", "one"], ["o"]), node("Add", ["m", "o"], ["h"])]
            if tied
            else []
        ),
        node("MatMul", ["h" if tied else "m", "w"], ["y"]),
    ]
    weights = {"table": networks.normal(ROWS, COLUMNS), "w": networks.normal(COLUMNS, 5, seed=1)}
    weights |= {"one": np.array(1)} if moved or tied else {}
    inputs = {"ids": (TensorProto.INT64, ["N", 20])}
    return networks.save(path, nodes, weights, inputs, {"y": ["N", 5]})


def sets_in(path, tokens):
    model = load(path)
    prepared = model.prepared()
    weights = {w.name: w for w in find_weights(model, prepared)}
    data = load_data({"ids": tokens}, model.inputs)
    network = Network(model, prepared, [weights["table"], weights["w"]], data)
    share = np.bincount(tokens.ravel(), minlength=ROWS) / len(tokens)
    importance = np.tile(share[:, None], COLUMNS).astype(np.float32)
    return row_sets(network, weights["table"], importance, network.batches)


def test_indices_may_be_inputs_or_computed(tmp_path):
    tokens, _ = zipf(np.random.default_rng(7), 200)
    tokens = np.minimum(tokens, ROWS - 2)
    given_, computed = sets_in(embedding(tmp_path / "m.onnx"), tokens), found(tokens)
    for one, other in zip(given_.rows, computed.rows, strict=True):
        assert (one == other).all()
    shifted = sets_in(embedding(tmp_path / "n.onnx", moved=True), tokens)
    assert (shifted.rows[-1] == given_.rows[-1] + 1).all()


def test_a_table_of_more_than_one_use_has_no_sets(tmp_path):
    tokens, _ = zipf(np.random.default_rng(7), 200)
    assert sets_in(embedding(tmp_path / "m.onnx", tied=True), tokens) is None


@pytest.mark.parametrize("trellis", [False, True])
def test_rare_rows_are_coarser_in_the_file_and_it_is_smaller(tmp_path, trellis, monkeypatch):
    """At the same damage on new text, and the file is the weights that were measured."""
    rng = np.random.default_rng(8)
    data, new = ({"ids": zipf(rng, samples)[0]} for samples in (400, 400))
    path = embedding(tmp_path / "m.onnx")
    model = onnxrd.load_model(path)
    sizes = []
    for name in ("with.onnx", "without.onnx"):
        compressor = prepared_compressor(model, data, None, onnxrd.Options())
        ladders = list(compressor.ladders.values())
        low, high = (np.log(slope_for_bits(ladders, bits)) for bits in (9.0, 0.02))
        points = [
            compressor.point(np.exp(low + (high - low) * t), method=Method(trellis=trellis))
            for t in np.linspace(0.4, 0.9, 7)
        ]
        held = onnxrd.load_data(new, model.inputs)
        unseen = HeldOut(model, compressor.prepared, tuple(compressor.network.heads), held)
        damages = [unseen.measure(p.quantization.constants()).distortion for p in points]
        sizes.append(
            np.exp(np.interp(np.log(0.03), np.log(damages), [np.log(p.nbytes) for p in points]))
        )
        point = points[3]
        result = compressor.write(point, tmp_path / name, tmp_path / name)
        assert (tmp_path / name).stat().st_size == point.nbytes
        assert result.evaluation.distortion == pytest.approx(point.damage.distortion, rel=1e-4)
        monkeypatch.setattr("onnxrd.compression.ladders.row_sets", lambda *_: None)
    assert sizes[0] < 0.97 * sizes[1]
