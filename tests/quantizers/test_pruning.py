"""Pruning: the right weights, exactly as many as asked for, and golden rule 1 exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd.errors import ImportanceError, ModelError, SettingError
from onnxrd.quantizers import (
    prune,
    prune_and_quantize,
    rule1_residual,
    weighted_distortion,
    weighted_kmeans,
)

steady = settings(derandomize=True, deadline=None, max_examples=150)
keeps = st.floats(0.001, 1)
scopes = st.sampled_from(["layer", "global"])


@st.composite
def networks(draw):
    """Weights, with ties or without, and their importance, of which some may be zero."""
    seed = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights, importance = {}, {}
    for name in draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)):
        shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
        ties = draw(st.booleans())
        weight = seed.integers(-3, 4, shape) if ties else seed.standard_normal(shape)
        weights[name] = weight.astype(draw(st.sampled_from([np.float16, np.float32, np.float64])))
        importance[name] = np.ones(shape) if ties else seed.lognormal(size=shape)
        importance[name] *= seed.random(shape) > 0.1
    return weights, importance


def by_sorting(scores, keep):
    """The plain way: a stable sort from the largest score down."""
    kept = np.zeros(len(scores), dtype=bool)
    kept[np.argsort(-scores, kind="stable")[: round(keep * len(scores))]] = True
    return kept


@steady
@given(networks(), keeps, scopes)
def test_the_largest_scores_are_kept(network, keep, scope):
    weights, importance = network
    pruned = prune(weights, importance, keep, scope=scope)
    scores = {n: (importance[n] * weights[n].astype(float) ** 2).ravel() for n in weights}
    if scope == "layer":
        expected = [by_sorting(score, keep) for score in scores.values()]
    else:
        expected = [by_sorting(np.concatenate(list(scores.values())), keep)]
    kept = np.concatenate(expected)
    original = np.concatenate([w.ravel() for w in weights.values()])
    found = np.concatenate([sparse.values.ravel() for sparse in pruned.values()])
    assert np.array_equal(found, np.where(kept, original, 0))
    assert list(pruned) == list(weights)


@steady
@given(networks(), keeps, scopes)
def test_what_is_kept_is_as_it_was_and_rule_1_is_exact(network, keep, scope):
    weights, importance = network
    for name, sparse in prune(weights, importance, keep, scope=scope).items():
        values, weight = sparse.dequantize(), weights[name]
        assert values.shape == sparse.shape == weight.shape
        assert values.dtype == weight.dtype
        assert ((values == weight) | (values == 0)).all()
        assert rule1_residual(weight, values, importance[name]) == 0


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(("keep", "count"), [(1.0, 1000), (0.25, 250), (1e-9, 0), (0.0015, 2)])
def test_exactly_as_many_as_asked_for(keep, count, scope):
    weight = np.random.default_rng(1).standard_normal((10, 100)).astype(np.float32)
    pruned = prune({"w": weight}, None, keep, scope=scope)["w"]
    assert np.count_nonzero(pruned.values) == count


def test_among_equals_the_first_are_kept():
    weights = {"first": np.ones((2, 2), np.float32), "second": -np.ones(4, np.float32)}
    together = prune(weights, None, 0.75, scope="global")
    assert np.array_equal(together["first"].values, [[1, 1], [1, 1]])
    assert np.array_equal(together["second"].values, [-1, -1, 0, 0])
    apart = prune(weights, None, 0.75, scope="layer")
    assert np.array_equal(apart["first"].values, [[1, 1], [1, 0]])
    assert np.array_equal(apart["second"].values, [-1, -1, -1, 0])


def test_without_importance_the_order_is_that_of_magnitude():
    weight = np.array([0.1, -3.0, 2.0, -0.2])
    assert np.array_equal(prune({"w": weight}, None, 0.5, scope="layer")["w"].values, [0, -3, 2, 0])


def test_importance_decides():
    weight, importance = np.array([0.1, -3.0, 2.0, -0.2]), np.array([1e4, 1.0, 1e-2, 1e3])
    pruned = prune({"w": weight}, {"w": importance}, 0.5, scope="layer")["w"]
    assert np.array_equal(pruned.values, [0.1, 0, 0, -0.2])


def test_scores_below_the_range_of_float32_are_told_apart():
    weight = np.array([1e-20, 2e-20, 3e-20, 4e-20], np.float32)
    importance = np.full(4, 1e-10, np.float32)
    pruned = prune({"w": weight}, {"w": importance}, 0.5, scope="layer")["w"]
    assert np.array_equal(np.flatnonzero(pruned.values), [2, 3])


def test_nothing_to_prune():
    assert prune({}, None, 0.5, scope="global") == {}
    empty = prune({"w": np.ones((0, 3), np.float32)}, None, 0.5, scope="layer")["w"]
    assert empty.shape == (0, 3)


@steady
@given(networks(), keeps, st.integers(2, 12))
def test_pruned_weights_get_zero_and_the_others_their_own_levels(network, keep, clusters):
    weights, importance = network
    for name, weight in weights.items():
        h = importance[name]
        book = prune_and_quantize(weight, h, keep, clusters)
        kept = by_sorting((h * weight.astype(float) ** 2).ravel(), keep).reshape(weight.shape)
        approximation = book.dequantize()
        assert approximation.shape == weight.shape
        assert approximation.dtype == weight.dtype
        assert 1 <= len(book.levels) <= clusters
        assert (np.diff(book.levels) > 0).all()
        assert (approximation[~kept] == 0).all()
        if kept.all():
            alone = weighted_kmeans(weight, h, clusters).dequantize()
        elif clusters > 2 and kept.any():
            alone = weighted_kmeans(weight[kept], h[kept], clusters - 1).dequantize()
        else:
            continue
        assert np.array_equal(approximation[kept], alone.ravel())


def test_two_clusters_are_zero_and_the_mean_of_what_is_kept():
    weight, importance = np.array([0.1, 3.0, 5.0, -0.2]), np.array([1.0, 1.0, 3.0, 1.0])
    book = prune_and_quantize(weight, importance, 0.5, 2)
    assert np.array_equal(book.levels, [0, 4.5])
    assert np.array_equal(book.codes, [0, 1, 1, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rule_1_holds_for_pruned_and_quantized_weights(dtype):
    seed = np.random.default_rng(2)
    weight, importance = seed.standard_normal((300, 200)).astype(dtype), seed.lognormal(size=60000)
    importance = importance.reshape(weight.shape)
    for clusters in (2, 9, 300):
        book = prune_and_quantize(weight, importance, 0.3, clusters)
        assert np.count_nonzero(book.dequantize()) == 18000
        assert abs(rule1_residual(weight, book.dequantize(), importance)) < 1e-6


def test_letting_kmeans_choose_the_zeros_is_never_worse():
    seed = np.random.default_rng(3)
    weight, importance = seed.laplace(size=400), seed.lognormal(size=400)
    chosen = weighted_kmeans(weight, importance, 5, pinned_zero=True).dequantize()
    best = weighted_distortion(weight, chosen, importance)
    for keep in (0.2, 0.5, 0.9):
        told = prune_and_quantize(weight, importance, keep, 5).dequantize()
        assert best <= weighted_distortion(weight, told, importance)


def test_measures_by_hand():
    weight = np.array([1, 2, 4], np.float32)
    approximation = np.array([1, 1, 5], np.float32)
    importance = np.array([7, 2, 3], np.float32)
    assert weighted_distortion(weight, approximation, None) == 1
    assert weighted_distortion(weight, approximation, importance) == 2.5
    assert rule1_residual(weight, approximation, None) == (1 - 5) / 27
    assert rule1_residual(weight, approximation, importance) == (2 - 15) / 84
    assert rule1_residual(weight, 0 * weight, importance) == 0


def test_the_residual_is_the_best_rescale():
    seed = np.random.default_rng(4)
    weight, importance = seed.standard_normal(50), seed.lognormal(size=50)
    approximation = np.round(weight, 0)
    gain = 1 + rule1_residual(weight, approximation, importance)
    at = [weighted_distortion(weight, approximation * g, importance) for g in np.r_[0.9:1.1:41j]]
    assert weighted_distortion(weight, approximation * gain, importance) <= min(at)
    assert abs(rule1_residual(weight, approximation * gain, importance)) < 1e-15


@pytest.mark.parametrize("keep", [0, -0.1, 1.0001, float("nan")])
def test_a_senseless_share(keep):
    with pytest.raises(SettingError, match="above 0 and up to 1"):
        prune({"w": np.ones(3)}, None, keep, scope="layer")
    with pytest.raises(SettingError, match="above 0 and up to 1"):
        prune_and_quantize(np.ones(3), None, keep, 4)


def test_other_senseless_settings():
    with pytest.raises(SettingError, match="'layer' or 'global'"):
        prune({"w": np.ones(3)}, None, 0.5, scope="network")
    with pytest.raises(SettingError, match="2 to 65536"):
        prune_and_quantize(np.ones(3), None, 0.5, 1)


def test_weights_and_importance_are_checked():
    weights = {"a": np.ones(3), "b": np.ones(3)}
    with pytest.raises(ImportanceError, match="no importance for b"):
        prune(weights, {"a": np.ones(3)}, 0.5, scope="layer")
    with pytest.raises(ImportanceError, match="importance of a holds negative"):
        prune({"a": np.ones(3)}, {"a": -np.ones(3)}, 0.5, scope="layer")
    with pytest.raises(ModelError, match="NaN"):
        prune_and_quantize(np.array([np.nan, 1.0]), None, 0.5, 4)
