"""k-means for a quartic cost: never worse than what it starts from, and at rest where it ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd.errors import ImportanceError, SettingError
from onnxrd.quantizers import (
    prune,
    prune_and_quantize,
    quartic_kmeans,
    weighted_distortion,
    weighted_kmeans,
)
from onnxrd.quantizers.quartic import _Moments, rising_root


def problem(seed, n=300, dtype=np.float32):
    rng = np.random.default_rng(seed)
    weight = (rng.standard_t(3, n) * 10.0 ** rng.uniform(-3, 3)).astype(dtype)
    h, q = rng.gamma(0.3, size=n), rng.gamma(0.2, size=n)
    return weight, h, q * 10.0 ** rng.uniform(-2, 4) / np.var(weight.astype(np.float64))


def cost(weight, h, q, book):
    error = weight.astype(np.float64) - book.dequantize()
    return float((h * error**2 + q * error**4 / 4).sum() / 2)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(2, 20), st.sampled_from([np.float16, np.float32]))
def test_never_worse_than_quadratic(seed, clusters, dtype):
    weight, h, q = problem(seed, dtype=dtype)
    found = quartic_kmeans(weight, h, q, clusters)
    assert len(found.levels) <= clusters
    assert cost(weight, h, q, found) <= cost(weight, h, q, weighted_kmeans(weight, h, clusters))
    nearest = np.abs(weight[:, None].astype(float) - found.levels.astype(float)).min(1)
    np.testing.assert_allclose(np.abs(weight.astype(float) - found.dequantize()), nearest)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(2, 20))
def test_no_turn_costs_anything(seed, clusters):
    weight, h, q = problem(seed)
    moments = _Moments(weight, h, q)
    rng = np.random.default_rng(seed)
    levels = np.sort(rng.choice(moments._value, clusters, replace=False))

    def of(levels):
        error = np.abs(moments._value[:, None] - levels).min(1)
        h_, q_ = h[moments._order], q[moments._order]
        return float((h_ * error**2 + q_ * error**4 / 4).sum())

    for _ in range(5):
        before, levels = of(levels), moments.turn(levels)
        assert of(levels) <= before * (1 + 1e-9)


def test_better_than_quadratic_where_the_quartic_term_matters():
    gains = []
    for seed in range(30):
        weight, h, q = problem(seed, 2000)
        plain = cost(weight, h, q, weighted_kmeans(weight, h, 8))
        gains.append(plain / cost(weight, h, q, quartic_kmeans(weight, h, q, 8)))
    assert min(gains) >= 1
    assert np.median(gains) > 1.1


def test_without_a_quartic_term_it_is_quadratic_k_means():
    weight, h, q = problem(1)
    found, plain = quartic_kmeans(weight, h, 0 * q, 8), weighted_kmeans(weight, h, 8)
    assert cost(weight, h, q * 0, found) <= cost(weight, h, q * 0, plain)
    np.testing.assert_allclose(found.levels, plain.levels, rtol=1e-3)


def test_levels_are_where_a_grid_finds_the_least():
    weight, h, q = problem(2, 200, np.float64)
    found = quartic_kmeans(weight, h, q, 4)
    for code, level in enumerate(found.levels):
        here = found.codes == code
        d = np.linspace(weight[here].min(), weight[here].max(), 20001)
        error = weight[here, None] - d
        total = (h[here, None] * error**2 + q[here, None] * error**4 / 4).sum(0)
        assert abs(d[total.argmin()] - level) < 2e-3 * np.ptp(weight[here]) + 1e-12


def test_an_offset_costs_no_digits():
    weight, h, q = problem(3, dtype=np.float64)
    weight /= weight.std()
    near, far = (quartic_kmeans(weight + by, h, q, 6) for by in (0, 1e6))
    np.testing.assert_allclose(near.levels, far.levels - 1e6, atol=1e-4)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32))
def test_roots_of_rising_cubics(seed):
    rng = np.random.default_rng(seed)
    root, low, high = np.sort(rng.normal(size=(3, 50)), axis=0)[[1, 0, 2]]
    inner, size = rng.normal(size=50), 10.0 ** rng.uniform(-6, 6, 50)
    # (s - root) · ((s - inner)² + c): never falls if c is large enough
    c = (root - inner) ** 2 / 3 + rng.gamma(0.1, size=50)
    coefficients = (
        size,
        -size * (root + 2 * inner),
        size * (inner**2 + c + 2 * inner * root),
        -size * root * (inner**2 + c),
    )
    np.testing.assert_allclose(rising_root(coefficients, low, high), root, atol=2e-5)


def test_pruning_by_the_full_score():
    weight = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    h, q = np.array([9.0, 1.0, 1.0, 0.1]), np.array([0.0, 0.0, 0.0, 1.0])
    (kept,) = prune({"w": weight}, {"w": h}, 0.5, scope="layer").values()
    np.testing.assert_array_equal(kept.values, [1, 0, 3, 0])
    (kept,) = prune({"w": weight}, {"w": h}, 0.5, scope="layer", quartic={"w": q}).values()
    np.testing.assert_array_equal(kept.values, [1, 0, 0, 4])  # 9, 4, 9, 65.6
    book = prune_and_quantize(weight, h, 0.25, 2, q)
    np.testing.assert_array_equal(book.dequantize(), [0, 0, 0, 4])


def test_pruned_and_quantized_is_no_worse():
    weight, h, q = problem(7)
    both = prune_and_quantize(weight, h, 0.5, 6, q)
    assert np.count_nonzero(both.dequantize()) == 150
    kept = both.dequantize() != 0
    plain = weighted_kmeans(weight[kept], h[kept], 5)
    assert weighted_distortion(weight[kept], both.dequantize()[kept], h[kept], q[kept]) <= (
        cost(weight[kept], h[kept], q[kept], plain)
    )


@pytest.mark.parametrize("bad", [np.ones(3), -np.ones(300), np.full(300, np.nan)])
def test_bad_quartic_importance(bad):
    weight, h, _ = problem(0)
    with pytest.raises(ImportanceError):
        quartic_kmeans(weight, h, bad, 4)
    with pytest.raises(SettingError):
        quartic_kmeans(weight, h, h, 1)
