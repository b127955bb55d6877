"""Vector codebooks: local optima of the weighted distortion that keep golden rule 1."""

from itertools import product

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from onnxrd.errors import ImportanceError, ModelError, SettingError
from onnxrd.quantizers import (
    rule1_residual,
    vector_fit,
    vector_kmeans,
    weighted_distortion,
    weighted_kmeans,
)

steady = settings(derandomize=True, deadline=None, max_examples=60)


def draws(size, spread=1.0, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(size).astype(dtype), rng.lognormal(sigma=spread, size=size)


def of_partition(weight, importance, which):
    """Distortion of runs [m, d] that share the weighted means of those that go the same way."""
    total = 0.0
    for code in set(which):
        own = np.array(which) == code
        for w, h in zip(weight[own].T, importance[own].T):
            total += (h * (w - np.average(w, weights=h)) ** 2).sum() / 2
    return total


def test_tiny_weights_mostly_get_the_optimum():
    """Of all ways to share two vectors among seven runs; Lloyd's method finds local optima."""
    excess = []
    for seed in range(40):
        w, h = draws((7, 2), seed=seed, dtype=np.float64)
        found = vector_kmeans(w, h, 2, 2, seed=seed)
        reached = weighted_distortion(w, found.dequantize(), h)
        best = min(of_partition(w, h, which) for which in product(range(2), repeat=7))
        assert reached >= best * (1 - 1e-6)
        excess.append(reached / best - 1)
    assert np.median(excess) < 1e-6
    assert np.mean(excess) < 0.2


@st.composite
def cases(draw):
    seed = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64, ml_dtypes.bfloat16]))
    weight = seed.standard_normal(shape) * 3 + draw(st.sampled_from([0, 0, 50]))
    if draw(st.booleans()):
        weight = np.rint(weight)
    importance = seed.lognormal(sigma=draw(st.sampled_from([0.0, 1.0, 3.0])), size=shape)
    importance *= seed.random(shape) >= draw(st.sampled_from([0.0, 0.3]))
    return weight.astype(dtype), importance, draw(st.integers(2, 8)), draw(st.integers(2, 20))


@steady
@given(cases())
def test_what_a_codebook_promises(case):
    weight, importance, d, clusters = case
    found = vector_kmeans(weight, importance, clusters, d)
    approximation = found.dequantize()
    assert approximation.shape == found.shape == weight.shape
    assert approximation.dtype == found.levels.dtype == weight.dtype
    assert found.codes.dtype == np.uint8
    assert found.codes.shape == (-(-weight.size // d),)
    assert found.levels.shape[1] == found.dimensions == d
    assert 1 <= len(found.levels) <= clusters
    assert found.counts.all() and (np.diff(found.counts) <= 0).all()
    again = vector_kmeans(weight, importance, clusters, d)
    assert np.array_equal(found.codes, again.codes)
    assert found.levels.tobytes() == again.levels.tobytes()


def runs(array, d):
    flat = array.astype(np.float64).ravel()
    return np.append(flat, np.full(-flat.size % d, np.nan)).reshape(-1, d)


@steady
@given(cases())
def test_vectors_are_the_means_of_their_runs_and_rule_1_holds(case):
    """What fills up the last run counts for nothing."""
    weight, importance, d, clusters = case
    found = vector_kmeans(weight, importance, clusters, d)
    if not importance.any():
        importance = np.ones_like(importance)
    epsilon = float(ml_dtypes.finfo(weight.dtype).eps)
    w, h = runs(weight, d), runs(importance, d)
    for code, vector in enumerate(found.levels.astype(np.float64)):
        own = found.codes == code
        for place in range(d):
            some = own & (np.nan_to_num(h[:, place]) > 0)
            if some.any():
                mean = np.average(w[some, place], weights=h[some, place])
                largest = np.abs(w[some, place]).max()
                assert abs(vector[place] - mean) <= epsilon * largest + 1e-12
    assert abs(rule1_residual(weight, found.dequantize(), importance)) <= epsilon


@steady
@given(cases())
def test_every_run_has_its_nearest_vector(case):
    """Small weights go on until nothing changes."""
    weight, importance, d, clusters = case
    importance = importance + 0.01
    weight = weight.astype(np.float64)
    found = vector_kmeans(weight, importance, clusters, d)
    if found.codes.size > 1 / vector_fit.SETTLED:
        return
    w, h = np.nan_to_num(runs(weight, d)), np.nan_to_num(runs(importance, d))
    costs = (h[:, None] * (w[:, None] - found.levels) ** 2).sum(-1)
    own = np.take_along_axis(costs, found.codes[:, None].astype(int), 1)[:, 0]
    assert (own <= costs.min(1) + 1e-5 * (h * w**2).sum(1) + 1e-9).all()


@pytest.mark.parametrize(("d", "clusters"), [(2, 16), (4, 64), (8, 30)])
def test_never_much_worse_than_sklearn_where_all_weights_are_alike(d, clusters):
    weight, _ = draws(40_000)
    found = vector_kmeans(weight, None, clusters, d)
    theirs = KMeans(clusters, n_init=1, random_state=0).fit(weight.reshape(-1, d))
    assert weighted_distortion(weight, found.dequantize(), None) <= 1.01 * theirs.inertia_ / 2


@pytest.mark.parametrize(("d", "clusters"), [(2, 16), (4, 64)])
def test_the_importance_of_each_weight_is_heeded(d, clusters):
    """Not that of runs only; and more weights a code leave less distortion at equal bits."""
    weight, h = draws(40_000)
    ours = weighted_distortion(weight, vector_kmeans(weight, h, clusters, d).dequantize(), h)
    fit = KMeans(clusters, n_init=1, random_state=0)
    fit.fit(weight.reshape(-1, d), sample_weight=h.reshape(-1, d).mean(1))
    theirs = fit.cluster_centers_[fit.labels_].reshape(weight.shape)
    assert ours < 0.92 * weighted_distortion(weight, theirs, h)
    scalar = weighted_kmeans(weight, h, round(clusters ** (1 / d)))
    assert ours < 0.85 * weighted_distortion(weight, scalar.dequantize(), h)


def test_a_sample_is_nearly_as_good(monkeypatch):
    weight, h = draws(60_000)
    whole = weighted_distortion(weight, vector_kmeans(weight, h, 32, 3).dequantize(), h)
    monkeypatch.setattr(vector_fit, "SAMPLE", 1000)
    monkeypatch.setattr(vector_fit, "AT_ONCE", 10_000)
    part = weighted_distortion(weight, vector_kmeans(weight, h, 32, 3).dequantize(), h)
    assert part <= 1.02 * whole


def test_little_work_is_one_round(monkeypatch):
    weight, h = draws(20_000)
    monkeypatch.setattr(vector_fit, "WORK", 1)
    found = vector_kmeans(weight, h, 32, 2)
    assert abs(rule1_residual(weight, found.dequantize(), h)) < 1e-6


@steady
@given(cases(), st.integers(-20, 20))
def test_scaling_leaves_the_codes_alone(case, power):
    weight, importance, d, clusters = case
    weight, scale = weight.astype(np.float64), 2.0**power
    found = vector_kmeans(weight, importance, clusters, d)
    scaled = vector_kmeans(weight * scale, importance / scale**2, clusters, d)
    assert np.array_equal(found.codes, scaled.codes)
    assert np.array_equal(found.levels * scale, scaled.levels)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("sample", [8, 1 << 16])
def test_few_different_runs_lose_nothing(dtype, sample, monkeypatch):
    monkeypatch.setattr(vector_fit, "SAMPLE", sample)
    rng = np.random.default_rng(1)
    kinds = rng.standard_normal((5, 3)).astype(dtype)
    weight = kinds[rng.integers(0, 5, 400)].reshape(40, 30)
    found = vector_kmeans(weight, rng.lognormal(size=weight.shape), 5, 3)
    assert len(found.levels) == 5
    assert found.dequantize().tobytes() == weight.tobytes()


def test_a_rare_run_that_no_sample_shows(monkeypatch):
    monkeypatch.setattr(vector_fit, "SAMPLE", 4)
    weight = np.ones((1000, 2), np.float32)
    weight[7], weight[500] = (3, 4), (-1, 9)
    found = vector_kmeans(weight, None, 2, 2)
    assert len(found.levels) == 2
    assert weighted_distortion(weight, found.dequantize(), None) < 20
    assert np.array_equal(vector_kmeans(weight, None, 3, 2).dequantize(), weight)


def test_runs_without_importance_move_nothing_and_get_the_nearest():
    weight, h = draws(3000)
    mattering = vector_kmeans(weight[:1500], h[:1500], 6, 2)
    h[1500:] = 0
    found = vector_kmeans(weight, h, 6, 2)
    own = weighted_distortion(weight[:1500], found.dequantize()[:1500], h[:1500])
    alone = weighted_distortion(weight[:1500], mattering.dequantize(), h[:1500])
    assert own == pytest.approx(alone, rel=0.1)
    error = weight[1500:] - found.dequantize()[1500:]
    assert (error**2).mean() < 0.4


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e30])
def test_extreme_magnitudes_keep_their_accuracy(scale):
    weight, h = draws(2000, dtype=np.float64)
    usual = vector_kmeans(weight, h, 8, 3).dequantize()
    large = vector_kmeans(weight * scale, h, 8, 3).dequantize()
    np.testing.assert_allclose(large, usual * scale, rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1), (3,)])
def test_tiny_shapes(shape):
    weight = np.ones(shape, np.float32)
    assert np.array_equal(vector_kmeans(weight, None, 2, 2).dequantize(), weight)


def test_many_vectors_take_two_bytes_a_code():
    weight, h = draws(6000)
    found = vector_kmeans(weight, h, 300, 2)
    assert found.codes.dtype == np.uint16
    assert 290 <= len(found.levels) <= 300


def test_what_makes_no_sense_is_refused():
    weight, h = draws(100)
    for clusters, d in ((1, 2), (65537, 2), (4, 1), (4, 9)):
        with pytest.raises(SettingError):
            vector_kmeans(weight, h, clusters, d)
    with pytest.raises(ImportanceError, match="negative"):
        vector_kmeans(weight, -h, 4, 2)
    with pytest.raises(ModelError, match="NaN"):
        vector_kmeans(weight * np.float32(np.nan), h, 4, 2)
