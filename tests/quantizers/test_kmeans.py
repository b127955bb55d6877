"""k-means: as good as the best there is, and what golden rules 1 and 2 say of it holds."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import KMeans

from onnxrd.errors import ImportanceError, ModelError, SettingError
from onnxrd.quantizers import kmeans, rule1_residual, weighted_distortion, weighted_kmeans
from onnxrd.quantizers.kmeans import merged_points
from onnxrd.quantizers.partition import even_cuts, exact_cuts, partition, refined_cuts

steady = settings(derandomize=True, deadline=None, max_examples=150)


def brute_force(weight, importance, clusters, pinned_zero):
    """The least distortion of all codebooks, by O(k n²) dynamic programming on plain sums."""
    order = np.argsort(weight)
    w, h = weight[order], importance[order]
    n = len(w)
    spread, energy = np.zeros((2, n + 1, n + 1))
    for i in range(n):
        for j in range(i + 1, n + 1):
            mass = h[i:j].sum()
            mean = (h[i:j] * w[i:j]).sum() / mass if mass > 0 else 0
            spread[i, j] = (h[i:j] * (w[i:j] - mean) ** 2).sum()
            energy[i, j] = (h[i:j] * w[i:j] ** 2).sum()
    free = np.full(n + 1, np.inf)  # [j], of the first j weights, no cell at zero
    free[0] = 0
    zero = energy[0]  # the same with one cell at zero, perhaps an empty one
    for _ in range(clusters - pinned_zero):
        free, zero = (
            [min(before[: j + 1] + spread[: j + 1, j]) for j in range(n + 1)]
            for before in (np.array(free), np.array(zero))
        )
        zero = [min(zero[j], *(np.array(free)[: j + 1] + energy[: j + 1, j])) for j in range(n + 1)]
    return (zero if pinned_zero else free)[n] / 2


@st.composite
def cases(draw, dtypes=(np.float16, np.float32, np.float64), most=40):
    """A weight with ties, gaps, outliers or nothing but noise, and its importance."""
    seed = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=most))
    shape = shape if np.prod(shape) <= most else shape[:1]
    kind = draw(st.sampled_from(["normal", "ties", "heavy", "gaps", "positive", "close"]))
    weight = {
        "normal": lambda: seed.standard_normal(shape),
        "ties": lambda: seed.integers(-4, 5, shape) / 4,
        "heavy": lambda: np.clip(seed.standard_cauchy(shape), -1e4, 1e4),
        "gaps": lambda: seed.choice([-100, -1, 2, 3], shape) + seed.standard_normal(shape) / 50,
        "positive": lambda: seed.lognormal(size=shape),
        "close": lambda: 1 + seed.standard_normal(shape) / 200,
    }[kind]()
    importance = seed.lognormal(sigma=draw(st.sampled_from([0.0, 1.0, 4.0])), size=shape)
    importance *= seed.random(shape) >= draw(st.sampled_from([0.0, 0.2]))
    return weight.astype(draw(st.sampled_from(dtypes))), importance


def epsilon(weight):
    return np.finfo(weight.dtype).eps


@steady
@given(cases((np.float64,), most=24), st.integers(2, 7), st.booleans())
def test_small_weights_get_the_optimum(case, clusters, pinned_zero):
    weight, importance = (array.ravel() for array in case)
    found = weighted_kmeans(weight, importance, clusters, pinned_zero=pinned_zero)
    reached = weighted_distortion(weight, found.dequantize(), importance)
    if not importance.any():
        importance = np.ones_like(importance)
        reached = weighted_distortion(weight, found.dequantize(), None)
    best = brute_force(weight, importance, clusters, pinned_zero)
    energy = float((importance * weight**2).sum())
    assert best * (1 - 1e-9) - 1e-13 * energy <= reached <= best * (1 + 1e-9) + 1e-13 * energy


@steady
@given(cases(), st.integers(2, 30), st.booleans())
def test_what_a_codebook_promises(case, clusters, pinned_zero):
    weight, importance = case
    found = weighted_kmeans(weight, importance, clusters, pinned_zero=pinned_zero)
    approximation = found.dequantize()
    assert approximation.shape == weight.shape
    assert approximation.dtype == found.levels.dtype == weight.dtype
    assert found.codes.dtype == np.uint8
    assert 1 <= len(found.levels) <= clusters
    assert (np.diff(found.levels) > 0).all()
    assert not pinned_zero or 0.0 in found.levels
    # Every weight has its nearest level, whatever its importance.
    distance = np.abs(weight[..., None].astype(float) - found.levels)
    own = np.abs(weight.astype(float) - approximation)
    assert (own <= distance.min(-1) * (1 + 1e-12)).all()
    again = weighted_kmeans(weight, importance, clusters, pinned_zero=pinned_zero)
    assert np.array_equal(found.codes, again.codes)
    assert np.array_equal(found.levels, again.levels)


@steady
@given(cases(), st.integers(2, 30), st.booleans())
def test_levels_are_the_means_of_their_cells(case, clusters, pinned_zero):
    weight, importance = case
    found = weighted_kmeans(weight, importance, clusters, pinned_zero=pinned_zero)
    if not importance.any():
        importance = np.ones_like(importance)
    for code, level in enumerate(found.levels):
        cell = found.codes == code
        if importance[cell].any() and not (pinned_zero and level == 0):
            mean = np.average(weight[cell].astype(float), weights=importance[cell])
            scale = np.abs(weight[cell]).max()
            tiny = np.finfo(weight.dtype).smallest_subnormal
            assert abs(level - mean) <= epsilon(weight) * scale + tiny
    assert abs(rule1_residual(weight, found.dequantize(), importance)) <= epsilon(weight)


@steady
@given(cases(), st.integers(2, 12), st.booleans(), st.integers(-6, 6))
def test_scaling_leaves_the_codes_alone(case, clusters, pinned_zero, power):
    weight, importance = case
    weight = weight.astype(np.float64)
    scale = 2.0**power
    found = weighted_kmeans(weight, importance, clusters, pinned_zero=pinned_zero)
    scaled = weighted_kmeans(
        weight * scale, importance / scale**2, clusters, pinned_zero=pinned_zero
    )
    assert np.array_equal(found.codes, scaled.codes)
    assert np.array_equal(found.levels * scale, scaled.levels)


@pytest.mark.parametrize("scale", [1e-30, 0.3, 7.0, 1e18])
def test_scaling_by_any_number_leaves_the_codes_alone(scale):
    seed = np.random.default_rng(3)
    weight, importance = seed.standard_normal(5000), seed.lognormal(size=5000)
    found = weighted_kmeans(weight, importance, 16)
    scaled = weighted_kmeans(weight * scale, importance / scale**2, 16)
    assert np.array_equal(found.codes, scaled.codes)


def test_weights_that_differ_by_little_are_told_apart():
    near_zero = np.random.default_rng(12).integers(-1000, 1000, 300) * 2.0**-50
    around_one = weighted_kmeans(1 + near_zero, None, 8)
    assert np.array_equal(around_one.codes, weighted_kmeans(near_zero, None, 8).codes)


@steady
@given(cases(), st.integers(2, 12), st.booleans(), st.randoms(use_true_random=False))
def test_permuting_the_weights_permutes_the_codes(case, clusters, pinned_zero, random):
    weight, importance = (array.ravel() for array in case)
    order = np.array(random.sample(range(weight.size), weight.size))
    found = weighted_kmeans(weight, importance, clusters, pinned_zero=pinned_zero)
    moved = weighted_kmeans(weight[order], importance[order], clusters, pinned_zero=pinned_zero)
    assert np.array_equal(found.codes[order], moved.codes)
    np.testing.assert_allclose(moved.levels, found.levels, rtol=2 * epsilon(weight), atol=1e-12)


@steady
@given(cases(), st.integers(2, 12))
def test_weights_without_importance_do_not_move_the_levels(case, clusters):
    weight, importance = (array.ravel() for array in case)
    if np.unique(weight[importance > 0]).size <= clusters:
        return
    mattering = weighted_kmeans(weight[importance > 0], importance[importance > 0], clusters)
    found = weighted_kmeans(weight, importance, clusters)
    scale = np.abs(weight).max()
    np.testing.assert_allclose(
        found.levels, mattering.levels, rtol=epsilon(weight), atol=epsilon(weight) * scale
    )


@pytest.mark.parametrize("pinned_zero", [False, True])
@pytest.mark.parametrize("clusters", [4, 16, 100])
def test_neighbours_that_are_merged_cost_next_to_nothing(monkeypatch, clusters, pinned_zero):
    rng = np.random.default_rng(clusters)
    weight = rng.laplace(size=60_000).astype(np.float32)
    h = rng.lognormal(size=weight.size).astype(np.float32)

    def distortion():
        book = weighted_kmeans(weight, h, clusters, pinned_zero=pinned_zero)
        return weighted_distortion(weight, book.dequantize(), h)

    every_point = distortion()
    monkeypatch.setattr(kmeans, "MOST_POINTS", 20_000)
    assert distortion() <= 1.002 * every_point


@steady
@given(cases(), st.booleans())
def test_enough_clusters_lose_nothing(case, pinned_zero):
    weight, importance = case
    clusters = max(2, np.unique(weight).size + pinned_zero)
    found = weighted_kmeans(weight, importance, clusters, pinned_zero=pinned_zero)
    assert np.array_equal(found.dequantize(), weight)
    assert len(found.levels) <= clusters


def test_few_weights_that_matter_lose_nothing():
    weight = np.linspace(-1, 1, 50)
    importance = np.zeros(50)
    importance[[3, 20, 41]] = [1e-12, 1, 5]
    found = weighted_kmeans(weight, importance, 4)
    assert weighted_distortion(weight, found.dequantize(), importance) == 0


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, -65504.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_constant_weights_have_one_level(value, dtype):
    weight = np.full((3, 4), value, dtype)
    found = weighted_kmeans(weight, None, 16)
    assert np.array_equal(found.levels, [value])
    assert not np.signbit(found.levels[0]) or value < 0
    assert np.array_equal(found.dequantize(), weight)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1)])
def test_tiny_shapes(shape):
    weight = np.ones(shape, np.float32)
    assert np.array_equal(weighted_kmeans(weight, weight, 2).dequantize(), weight)
    pinned = weighted_kmeans(weight, weight, 2, pinned_zero=True)
    assert np.array_equal(pinned.dequantize(), weight)
    assert pinned.levels[0] == 0


@pytest.mark.parametrize(("clusters", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_codes_are_as_small_as_they_can_be(clusters, dtype):
    weight = np.random.default_rng(4).standard_normal(3000).astype(np.float32)
    found = weighted_kmeans(weight, None, clusters)
    assert len(found.levels) == clusters
    assert found.codes.dtype == dtype
    assert (found.counts > 0).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e40, 1e300])
def test_extreme_magnitudes_keep_their_accuracy(scale):
    seed = np.random.default_rng(5)
    weight, importance = seed.standard_normal(2000), seed.lognormal(size=2000)
    usual = weighted_kmeans(weight, importance, 8)
    large = weighted_kmeans(weight * scale, importance, 8)
    tiny = weighted_kmeans(weight, importance * scale, 8)
    assert np.array_equal(usual.codes, large.codes)
    assert np.array_equal(usual.codes, tiny.codes)


# Beyond the exact range: bins, refinement, and the start that many clusters get.

N = 4000
DENSITIES = {
    "normal": lambda seed: seed.standard_normal(N),
    "laplace": lambda seed: seed.laplace(size=N),
    "uniform": lambda seed: seed.random(N) - 0.3,
    "cauchy": lambda seed: seed.standard_cauchy(N),
    "scales": lambda seed: seed.lognormal(sigma=2, size=N) * seed.choice([-1, 1], N),
    "modes": lambda seed: seed.choice(seed.standard_normal(60), N) + seed.standard_normal(N) / 1000,
}


def line(name, seed, spread, pinned_zero):
    seed = np.random.default_rng(seed)
    weight = np.sort(DENSITIES[name](seed))
    weight -= 0 if pinned_zero else np.median(weight)
    return merged_points(weight, seed.lognormal(sigma=spread, size=N), pinned_zero)


def cost(points, cuts, pinned):
    """Σ m (x - level)² of a partition, [1]."""
    total = 0.0
    for cell, (start, stop) in enumerate(pairwise(cuts)):
        m = np.diff(points.mass[start : stop + 1])
        x = points.x[start:stop]
        level = 0.0 if cell == pinned else (m * x).sum() / m.sum()
        total += (m * (x - level) ** 2).sum()
    return total


@pytest.mark.parametrize("pinned_zero", [False, True])
@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("name", DENSITIES)
def test_large_weights_come_within_two_tenths_of_a_percent(name, spread, pinned_zero):
    points = line(name, 6, spread, pinned_zero)
    for cells in (3, 16, 64):
        found = cost(points, *partition(points, cells))
        assert found <= 1.002 * cost(points, *exact_cuts(points, cells, len(points)))


@pytest.mark.parametrize("name", ["normal", "laplace", "uniform"])
def test_very_many_clusters_come_within_ten_percent(name):
    points = line(name, 7, 0.5, False)
    assert cost(points, *partition(points, 1100)) <= 1.1 * cost(
        points, *exact_cuts(points, 1100, len(points))
    )


@steady
@given(st.sampled_from(sorted(DENSITIES)), st.integers(0, 1000), st.integers(2, 80), st.booleans())
def test_refinement_never_makes_it_worse_and_ends_where_lloyd_stands_still(
    name, seed, cells, pinned_zero
):
    points = line(name, seed, 1.0, pinned_zero)
    start, pinned = even_cuts(points, cells), None
    if pinned_zero:
        start, pinned = exact_cuts(points, cells, 80)
    end = refined_cuts(points, start, pinned)
    assert cost(points, end, pinned) <= cost(points, start, pinned) * (1 + 1e-9)
    moment, mass = np.diff(points.moment[end]), np.diff(points.mass[end])
    level = np.where(np.arange(cells) == pinned, 0, moment / np.maximum(mass, 1))
    lloyd = np.searchsorted(points.x, (level[1:] + level[:-1]) / 2)
    assert np.abs(lloyd - end[1:-1]).max(initial=0) == 0


@steady
@given(st.sampled_from(sorted(DENSITIES)), st.integers(0, 1000), st.integers(2, N + 10))
def test_even_cuts_leave_no_cell_empty(name, seed, cells):
    points = line(name, seed, 1.0, False)
    cuts = even_cuts(points, cells)
    assert len(cuts) == min(cells, N) + 1
    assert cuts[0] == 0
    assert cuts[-1] == N
    assert (np.diff(cuts) > 0).all()


def test_an_outlier_does_not_take_the_bins():
    weight = np.append(np.random.default_rng(8).standard_normal(N), [1e3, -1e4, 1e6])
    points = merged_points(np.sort(weight), np.ones(N + 3), False)
    cuts = even_cuts(points, 20)
    assert {1, N + 1, N + 2} < set(cuts)


@pytest.mark.parametrize("clusters", [4, 16, 64])
@pytest.mark.parametrize("name", DENSITIES)
def test_never_worse_than_sklearn(name, clusters):
    seed = np.random.default_rng(9)
    weight, importance = DENSITIES[name](seed).astype(np.float32), seed.lognormal(size=N)
    ours = weighted_kmeans(weight, importance, clusters)
    theirs = KMeans(clusters, n_init=2, random_state=0)
    theirs.fit(weight[:, None], sample_weight=importance)
    reached = weighted_distortion(weight, ours.dequantize(), importance)
    assert reached <= 1.001 * theirs.inertia_ / 2


def test_rule_1_holds_for_a_million_weights():
    seed = np.random.default_rng(10)
    weight = seed.laplace(size=1_000_000).astype(np.float32)
    importance = seed.lognormal(size=weight.size).astype(np.float32)
    for pinned_zero in (False, True):
        found = weighted_kmeans(weight, importance, 32, pinned_zero=pinned_zero)
        assert abs(rule1_residual(weight, found.dequantize(), importance)) < 1e-6
        assert found.counts.sum() == weight.size


def test_pinning_zero_costs_little_and_gains_nothing():
    seed = np.random.default_rng(11)
    weight, importance = seed.standard_normal(N), seed.lognormal(size=N)
    free, pinned, fewer = (
        weighted_distortion(weight, book.dequantize(), importance)
        for book in (
            weighted_kmeans(weight, importance, 9),
            weighted_kmeans(weight, importance, 9, pinned_zero=True),
            weighted_kmeans(weight, importance, 8),
        )
    )
    assert free <= pinned <= fewer


@pytest.mark.parametrize("clusters", [-1, 0, 1, 65537])
def test_a_senseless_number_of_clusters(clusters):
    with pytest.raises(SettingError, match="2 to 65536"):
        weighted_kmeans(np.ones(3, np.float32), None, clusters)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite(value):
    with pytest.raises(ModelError, match="leave this weight out"):
        weighted_kmeans(np.array([1.0, value]), None, 2)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.complex64, np.longdouble, bool])
def test_a_weight_that_is_not_floating_point(dtype):
    with pytest.raises(ModelError, match="cast it to float32"):
        weighted_kmeans(np.ones(3, dtype), None, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_an_importance_that_makes_no_sense(value):
    with pytest.raises(ImportanceError, match="compute it again"):
        weighted_kmeans(np.ones(2), np.array([1.0, value]), 2)


def test_an_importance_of_another_shape():
    with pytest.raises(ImportanceError, match=r"shape \(2, 3\), its importance \(3, 2\)"):
        weighted_kmeans(np.ones((2, 3)), np.ones((3, 2)), 2)
