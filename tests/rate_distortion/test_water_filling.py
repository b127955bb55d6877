"""Theorem 2: the worked example, the optimality conditions, and what correlation does to it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd.errors import SettingError
from onnxrd.rate_distortion import (
    BITS,
    correlated_bound,
    gaussian_rate,
    theorem2_bound,
    water_filling,
    water_levels,
)

steady = settings(derandomize=True, deadline=None, max_examples=200)

EXAMPLE = np.array([3.0, 2.0, 1.0])  # Σ_W and Σ_X of the worked example, λ = h/2


@pytest.mark.parametrize(
    ("distortion", "multiplier", "squares", "rate"),
    [
        (1.5, 1 / 2, [1 / 6, 1 / 4, 1 / 2], math.log(36 / (1 / 2) ** 3) / 2),  # all three are sent
        (3, 1, [1 / 3, 1 / 2, 1], math.log(36) / 2),  # a corner
        (5, 2, [2 / 3, 1, 1], math.log(9) / 2),  # the third is left out
        (9, 4, [4 / 3, 2, 1], math.log(9 / 4) / 2),  # a corner
        (11.5, 6.5, [13 / 6, 2, 1], math.log(18 / 13) / 2),  # only the first is sent
        (14, 9, [3, 2, 1], 0),  # D_max
        (20, 9, [3, 2, 1], 0),
    ],
)
def test_worked_example_of_the_paper(distortion, multiplier, squares, rate):
    filled = water_filling(EXAMPLE, 2 * EXAMPLE, distortion=distortion)
    assert filled.multiplier == multiplier
    assert filled.distortion == min(distortion, 14)
    assert filled.nats == pytest.approx(rate, rel=1e-15, abs=1e-15)
    assert filled.bits == pytest.approx(filled.nats / math.log(2), rel=1e-15)
    levels = water_levels(EXAMPLE, 2 * EXAMPLE, filled.multiplier)
    np.testing.assert_allclose(levels, squares, rtol=1e-15)


@pytest.mark.parametrize("rate", [math.log(36 * 8) / 2, math.log(6), math.log(1.5), 0])
def test_worked_example_from_rate_to_distortion(rate):
    filled = water_filling(EXAMPLE, 2 * EXAMPLE, rate=rate)
    assert filled.nats == pytest.approx(rate, rel=1e-15, abs=1e-15)
    if rate:
        there = water_filling(EXAMPLE, 2 * EXAMPLE, distortion=filled.distortion)
        assert there.multiplier == pytest.approx(filled.multiplier, rel=1e-14)
    else:
        assert filled.distortion == pytest.approx(14)


def test_a_single_gaussian():
    distortion = np.array([0.01, 0.5, 2, 7])
    assert np.array_equal(gaussian_rate(2.0, distortion) > 0, [True, True, False, False])
    for d in distortion:
        rate = water_filling(2.0, 2.0, distortion=d).nats  # importance 2 is the plain square
        assert rate == pytest.approx(float(gaussian_rate(2, d)), abs=1e-15)
    assert gaussian_rate(1, 1 / 4) * BITS == pytest.approx(1)


@st.composite
def weights(draw):
    """Variances and importance over many orders of magnitude, with ties and zeros."""
    seed = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 40))
    spread = draw(st.sampled_from([0.0, 1.0, 5.0]))
    variance, importance = np.exp(spread * seed.standard_normal((2, n)))
    if draw(st.booleans()):
        variance, importance = np.round(variance, 1), np.round(importance)
    variance[0] = importance[0] = 1
    return variance, importance


@steady
@given(weights(), st.floats(1e-6, 1.2))
def test_conditions_of_karush_kuhn_and_tucker(case, share):
    variance, importance = case
    most = (importance * variance).sum() / 2
    filled = water_filling(variance, importance, distortion=share * most)
    levels = water_levels(variance, importance, filled.multiplier)
    spent = importance * levels / 2
    assert spent.sum() == pytest.approx(min(share, 1) * most, rel=1e-12)
    assert filled.distortion == pytest.approx(spent.sum(), rel=1e-12)
    sent = levels < variance
    np.testing.assert_allclose(spent[sent], filled.multiplier, rtol=1e-14)
    assert (spent[~sent] <= filled.multiplier * (1 + 1e-14)).all()
    expected = gaussian_rate(variance[sent], levels[sent]).sum()
    assert filled.nats == pytest.approx(expected, rel=1e-9, abs=1e-12)


@steady
@given(weights(), st.floats(1e-4, 1), st.floats(1e-4, 1))
def test_rate_falls_and_is_convex(case, here, there):
    variance, importance = case
    most = (importance * variance).sum() / 2
    filled, other = (
        water_filling(variance, importance, distortion=x * most) for x in (here, there)
    )
    assert (filled.nats - other.nats) * (here - there) <= 0
    tangent = filled.nats - (there - here) * most / (2 * filled.multiplier)
    assert other.nats >= tangent - 1e-9 * (1 + abs(tangent))


@steady
@given(weights(), st.floats(0, 100))
def test_a_rate_is_met_exactly(case, rate):
    filled = water_filling(*case, rate=rate)
    assert filled.nats == pytest.approx(rate, rel=1e-12, abs=1e-12)
    again = water_filling(*case, distortion=filled.distortion)
    assert again.nats == pytest.approx(rate, rel=1e-9, abs=1e-9)


@steady
@given(weights(), st.floats(1e-3, 1), st.sampled_from([1e-9, 0.3, 7.0, 1e6]))
def test_units_do_not_matter(case, share, factor):
    variance, importance = case
    most = (importance * variance).sum() / 2
    filled = water_filling(variance, importance, distortion=share * most)
    rescaled = water_filling(factor**2 * variance, importance / factor**2, distortion=share * most)
    dearer = water_filling(variance, factor * importance, distortion=factor * share * most)
    near = pytest.approx(filled.nats, rel=1e-9, abs=1e-9)
    assert rescaled.nats == near and dearer.nats == near
    assert rescaled.multiplier == pytest.approx(filled.multiplier, rel=1e-9)
    assert dearer.multiplier == pytest.approx(factor * filled.multiplier, rel=1e-9)


def test_many_weights_in_chunks(rng):
    importance = np.exp(2 * rng.standard_normal((3, 70_001))).astype(np.float32)
    variance = np.array([[1e-2], [1.0], [0.0]])
    filled = water_filling(variance, importance, distortion=1e4)
    energies = np.sort((variance * importance / 2).ravel())
    filling = np.minimum(energies, filled.multiplier).sum()
    assert filling == pytest.approx(1e4, rel=1e-12) and filled.size == 210_003
    assert filled == water_filling(variance.T, importance.T, distortion=1e4)


def test_nothing_that_matters():
    for target in ({"distortion": 1.0}, {"rate": 5.0}):
        filled = water_filling([0.0, 1.0], [1.0, 0.0], **target)
        assert (filled.nats, filled.distortion, filled.multiplier) == (0, 0, 0)
        assert np.array_equal(water_levels([0.0, 1.0], [1.0, 0.0], 0.0), [0, 1])


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"distortion": 1.0, "rate": 1.0},
        {"distortion": 0.0},
        {"distortion": math.nan},
        {"rate": -1.0},
        {"rate": math.inf},
        {"rate": 1e9},
        {"variance": [-1.0], "rate": 1.0},
        {"importance": [math.inf], "rate": 1.0},
    ],
)
def test_nonsense_is_refused(arguments):
    with pytest.raises(SettingError):
        water_filling(**{"variance": [1.0], "importance": [1.0], **arguments})


# Correlated weights


def autoregressive(n, correlation=0.9):
    return correlation ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))


def test_correlation_makes_the_bound_of_the_paper_negative():
    """AR(0.9), D = 0.2 D_max, λ lognormal: -0.20 bits a weight where 0.236 are needed."""
    lam = np.random.default_rng(0).lognormal(size=16)
    target = 0.2 * lam.sum()
    bits = theorem2_bound(autoregressive(16), 2 * lam, target) * BITS / 16
    assert bits == pytest.approx(-0.1999, abs=1e-4)
    exact = correlated_bound(autoregressive(16), 2 * lam, target)
    assert exact.bits / 16 == pytest.approx(0.2363, abs=1e-4)
    assert exact.distortion == pytest.approx(target, rel=1e-12)


def test_long_correlated_sequences_meet_the_spectral_bound():
    """Equal importance; the limit is water-filling on the spectral density."""
    n = 1000
    angles = np.pi * (np.arange(100_000) + 0.5) / 100_000
    spectrum = 0.19 / (1.81 - 1.8 * np.cos(angles))
    limit = water_filling(spectrum, 2.0, distortion=0.2 * len(angles)).bits / len(angles)
    exact = correlated_bound(autoregressive(n), 2.0, 0.2 * n).bits / n
    assert limit == pytest.approx(0.2310, abs=1e-4)
    assert exact == pytest.approx(limit, abs=0.002)
    bits = theorem2_bound(autoregressive(n), 2.0, 0.2 * n) * BITS / n
    assert bits == pytest.approx(-0.0358, abs=1e-4)


@steady
@given(weights(), st.floats(1e-3, 1))
def test_without_correlation_all_three_agree(case, share):
    variance, importance = case[0] + 1e-3, case[1]
    target = share * (importance * variance).sum() / 2
    filled = water_filling(variance, importance, distortion=target)
    near = pytest.approx(filled.nats, rel=1e-6, abs=1e-6)
    assert theorem2_bound(np.diag(variance), importance, target) == near
    assert correlated_bound(np.diag(variance), importance, target).nats == near
    assert correlated_bound(np.diag(variance), np.diag(importance), target).nats == near


@steady
@given(st.integers(0, 2**32), st.integers(1, 8), st.floats(1e-4, 1))
def test_exact_bound_does_not_depend_on_the_basis(seed, n, share):
    rng = np.random.default_rng(seed)
    root, other = rng.standard_normal((2, n, n))
    covariance, importance = root @ root.T, other @ other.T
    target = share * np.trace(covariance @ importance) / 2
    exact = correlated_bound(covariance, importance, target)
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    turned = correlated_bound(basis @ covariance @ basis.T, basis @ importance @ basis.T, target)
    assert turned.nats == pytest.approx(exact.nats, rel=1e-6, abs=1e-6)
    diagonal = correlated_bound(covariance, np.diagonal(importance), target)
    bound = theorem2_bound(covariance, np.diagonal(importance), target)
    assert bound <= diagonal.nats + 1e-6 * (1 + diagonal.nats)
