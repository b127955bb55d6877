"""R(D) of one random variable: Blahut-Arimoto against everything that is known in closed form."""

import math

import numpy as np
import pytest
from densities import cells, gaussian, laplacian
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd.errors import SettingError
from onnxrd.rate_distortion import (
    BITS,
    Histogram,
    blahut_arimoto,
    empirical_curve,
    gaussian_curve,
    gaussian_rate,
    histogram,
    tabulated_curve,
)

steady = settings(derandomize=True, deadline=None, max_examples=30)


@pytest.mark.parametrize("slope", [0.6, 1.0, 5.0, 50.0, 200.0])
def test_blahut_arimoto_meets_the_gaussian(slope):
    point = blahut_arimoto(cells(gaussian, 6), slope, tolerance=1e-4)
    exact = gaussian_rate(1.0, point.distortion)
    assert point.nats == pytest.approx(float(exact), abs=3e-4)
    assert point.distortion == pytest.approx(1 / (2 * slope), rel=1e-2)
    assert 0 <= point.gap <= 1e-4
    assert point.mass.sum() == pytest.approx(1)


@pytest.mark.parametrize("flips", [0.01, 0.11, 0.3])
def test_blahut_arimoto_meets_the_binary_source(flips):
    """±1 reproduced by ±1: log 2 - H(D/4) by Shannon, exactly."""
    coin = Histogram(np.array([-1.0, 1]), np.array([50.0, 50]))
    point = blahut_arimoto(coin, math.log(1 / flips - 1) / 4, tolerance=1e-12)
    assert point.distortion == pytest.approx(4 * flips)
    entropy = -flips * math.log(flips) - (1 - flips) * math.log(1 - flips)
    assert point.nats == pytest.approx(math.log(2) - entropy)
    assert point.bits == pytest.approx(1 - entropy / math.log(2))


def test_gap_tells_how_far_it_has_to_go():
    density = cells(laplacian, 18)
    best = blahut_arimoto(density, 1.0, tolerance=1e-5, most_iterations=100_000)
    for steps in (1, 10, 100):
        early = blahut_arimoto(density, 1.0, most_iterations=steps)
        excess = early.nats + early.distortion - best.nats - best.distortion
        assert 0 < excess < early.gap


def test_reproductions_may_be_anything():
    """From far away all that is left is the nearest of them."""
    density = cells(gaussian, 6)
    point = blahut_arimoto(density, 100.0, reproductions=np.array([-40.0, 40]))
    assert point.nats == pytest.approx(math.log(2), abs=0.01)
    assert point.distortion == pytest.approx(40**2 + 1 - 80 * math.sqrt(2 / math.pi), rel=1e-3)


def test_laplacian_is_just_above_the_shannon_lower_bound():
    curve = tabulated_curve(cells(laplacian, 18, count=400))
    distortion = 2.0 * np.exp2(-2 * np.array([0.5, 1, 2, 3, 4]))
    lower = 1 + math.log(2) - np.log(2 * math.pi * math.e * distortion) / 2
    excess = (curve.rate(distortion) - lower) * BITS
    assert (excess > 0).all() and (np.diff(excess) < 1e-4).all()
    np.testing.assert_allclose(excess, [0.017, 0.0036, 3e-4, 0, 0], atol=1e-3)
    assert (curve.rate(distortion) < gaussian_rate(2.0, distortion)).all()


def test_gaussian_curve_is_the_closed_form():
    curve = gaussian_curve(0.3)
    distortion = 0.3 * np.geomspace(1e-9, 3, 50)
    np.testing.assert_allclose(curve.rate(distortion), gaussian_rate(0.3, distortion), atol=1e-14)
    slope = np.array([0, 1e-3, 1 / 0.6, 2, 1e9])
    nats, errors = curve.at(slope)
    np.testing.assert_allclose(errors, [0.3, 0.3, 0.3, 1 / 4, 5e-10])
    np.testing.assert_allclose(nats, gaussian_rate(0.3, errors), atol=1e-14)


@pytest.mark.parametrize(("size", "tolerance"), [(300, 0.2), (10_000, 0.015), (1_000_000, 0.002)])
def test_samples_tell_the_curve_of_their_density(rng, size, tolerance):
    weight = (1e-3 * rng.standard_normal(size) + 5).astype(np.float64)
    distortion = weight.var() * np.exp2(-2 * np.arange(0, 5.5, 0.5))
    bits = empirical_curve(weight).rate(distortion) * BITS
    np.testing.assert_allclose(bits, np.arange(0, 5.5, 0.5), atol=tolerance)


def test_a_few_levels_cost_their_entropy_and_no_more(rng):
    weight = rng.integers(-7, 8, 50_000) * np.float32(0.1)
    curve = empirical_curve(weight)
    share = np.unique_counts(weight).counts / weight.size
    assert curve.at(1e9)[0] == pytest.approx(-(share * np.log(share)).sum(), abs=1e-4)
    assert curve.rate(1e-12) == pytest.approx(curve.nats[-1], abs=1e-4)


def test_zeros_are_cheap(rng):
    """A mixture of an atom and a density: beyond its entropy only the dense half costs."""
    weight = rng.standard_normal(400_000) * (rng.random(400_000) < 0.5)
    bits = empirical_curve(weight).rate(np.exp2(-2.0 * np.array([10, 12]))) * BITS
    assert np.diff(bits) == pytest.approx([2 / 2], rel=0.2)
    assert bits[0] < 1 + 10 / 2 + 0.5


def test_outliers_take_no_cells_from_the_rest(rng):
    weight = rng.standard_normal(100_000)
    plain = empirical_curve(weight).rate(np.array([1e-1, 1e-3])) * BITS
    weight[17] = 1e5
    spoilt = empirical_curve(weight)
    assert spoilt.slope[0] < 1e-3  # the outlier alone is worth sending long before
    np.testing.assert_allclose(spoilt.rate(np.array([1e-1, 1e-3])) * BITS, plain, atol=0.02)


@pytest.mark.parametrize("weight", [np.ones(5), np.full((3, 4), 0.1, np.float32), np.zeros(1)])
def test_a_constant_costs_nothing(weight):
    curve = empirical_curve(weight)
    assert curve.at([0, 1.0, 1e9])[0] == pytest.approx(0)
    assert curve.rate([1e-20, 1.0]) == pytest.approx(0)


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf, -math.inf]])
def test_no_density_no_curve(bad):
    with pytest.raises(SettingError):
        empirical_curve(np.array(bad, np.float32))
    with pytest.raises(SettingError):
        gaussian_curve(-1.0)


@st.composite
def tensors(draw):
    seed = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from([2, 3, 20, 500]))
    kind = draw(st.sampled_from(["normal", "heavy", "sparse", "levels", "skew"]))
    return {
        "normal": lambda: seed.standard_normal(size),
        "heavy": lambda: np.clip(seed.standard_cauchy(size), -1e4, 1e4),
        "sparse": lambda: seed.standard_normal(size) * (seed.random(size) < 0.3),
        "levels": lambda: seed.integers(-3, 4, size) / 8,
        "skew": lambda: seed.lognormal(size=size),
    }[kind]()


@steady
@given(tensors(), st.sampled_from([1e-6, 1.0, 300.0]))
def test_every_curve_falls_and_is_convex_and_below_the_gaussian(weight, factor):
    variance = weight.var() + 1e-30
    curve = empirical_curve(weight)
    distortion = variance * np.linspace(1e-3, 1.1, 300)
    rate = curve.rate(distortion)
    assert (np.diff(rate) <= 1e-12).all() and (rate >= 0).all()
    assert (np.diff(rate, 2) >= -2e-3).all()
    assert (rate <= gaussian_rate(variance, distortion) + 2e-3).all()
    scaled = empirical_curve(factor * weight + 3 * factor).rate(factor**2 * distortion)
    np.testing.assert_allclose(scaled, rate, atol=2e-3)
    nats, errors = curve.at(np.geomspace(1e-3, 1e6, 200) / variance)
    assert (np.diff(nats) >= 0).all() and (np.diff(errors) <= 0).all()


def test_histogram_merges_what_is_close(rng):
    numbers = np.append(np.exp(5 * rng.standard_normal(3_000_000)), [0.0, -0.0, -3.5])
    counted = histogram(numbers.astype(np.float32))
    assert counted.counts.sum() == len(numbers)
    assert counted.counts[counted.values == 0] == 2 and counted.values[0] == -3.5
    assert (np.diff(counted.values) > 0).all() and len(counted.values) < 30_000
    positive = counted.values > 0
    entropy = counted.counts[positive] @ np.log(counted.values[positive])
    assert entropy == pytest.approx(np.log(numbers[numbers > 0]).sum(), abs=1e-6 * len(numbers))
    few = counted.merged(100)
    assert len(few.values) <= 100 and (np.diff(few.values) > 0).all()
    assert few.mean == pytest.approx(counted.mean) and few.counts.sum() == len(numbers)
