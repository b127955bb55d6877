"""The bound of a whole network: one slope for all tensors, Gaussian or as they are."""

import math

import numpy as np
import pytest
from densities import cells, gaussian
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd.errors import ImportanceError, SettingError
from onnxrd.rate_distortion import (
    BITS,
    Curve,
    Histogram,
    Source,
    bound,
    bound_at,
    empirical_source,
    gaussian_curve,
    gaussian_source,
    histogram,
    tabulated_curve,
    water_filling,
)

steady = settings(derandomize=True, deadline=None, max_examples=50)


def one_weight(curve, importance):
    return Source(curve, Histogram(np.array([importance]), np.ones(1)))


def scaled(curve, variance):
    return Curve(curve.slope / variance, curve.nats, curve.distortion * variance)


@pytest.mark.parametrize("distortion", [0.03, 1, 3, 5, 9, 12, 14])
def test_diagonal_source_water_filling_meets_blahut_arimoto(distortion):
    """The worked example of theorem 2, once more with iterated curves."""
    unit = tabulated_curve(cells(gaussian, 6))
    sources = [one_weight(scaled(unit, v), 2 * v) for v in (3.0, 2.0, 1.0)]
    iterated = bound(sources, distortion=distortion)
    filled = water_filling([3.0, 2, 1], [6.0, 4, 2], distortion=distortion)
    assert iterated.bits.sum() == pytest.approx(filled.bits, abs=2e-3)
    assert iterated.distortion.sum() == pytest.approx(distortion, rel=1e-3)


@st.composite
def networks(draw):
    seed = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = draw(st.lists(st.sampled_from([1, 30, 1000]), min_size=1, max_size=4))
    variances = np.exp(2 * seed.standard_normal(len(sizes)))
    importances = [np.exp(seed.standard_normal(n) * seed.integers(0, 4)) for n in sizes]
    importances[0][::3] = 0
    return variances, importances


@steady
@given(networks(), st.floats(1e-5, 1.2))
def test_gaussian_tensors_are_water_filling(case, share):
    variances, importances = case
    energies = [v * h / 2 for v, h in zip(variances, importances)]
    most = sum(map(np.sum, energies))
    sources = [Source(gaussian_curve(v), histogram(h)) for v, h in zip(variances, importances)]
    if most == 0:
        return
    point = bound(sources, distortion=share * most)
    exact = water_filling(np.concatenate(energies), 2.0, distortion=share * most)
    size = len(np.concatenate(energies))
    assert point.nats.sum() == pytest.approx(exact.nats, abs=1e-5 * size)
    assert point.distortion.sum() <= share * most * (1 + 1e-12)
    if 0 < share < 1:
        assert point.distortion.sum() == pytest.approx(share * most, rel=1e-9)
        assert point.multiplier == pytest.approx(exact.multiplier, rel=1e-4)
    assert point.bits_per_weight == pytest.approx(point.nats.sum() * BITS / size)
    back = bound(sources, rate=point.nats.sum() / 2)
    assert back.nats.sum() <= point.nats.sum() / 2 * (1 + 1e-12)
    assert back.nats.sum() == pytest.approx(point.nats.sum() / 2, rel=1e-9, abs=1e-12)


def test_what_the_weights_are_saves_bits(rng):
    """Laplacian weights under lognormal importance; each weight at its own slope."""
    weight = rng.laplace(size=200_000).astype(np.float32)
    importance = rng.lognormal(size=weight.shape).astype(np.float32)
    blind, seeing = (make(weight, importance) for make in (gaussian_source, empirical_source))
    target = 0.05 * float((importance * weight.astype(np.float64) ** 2).sum()) / 2
    gauss, exact = bound([blind], distortion=target), bound([seeing], distortion=target)
    assert 0.09 < gauss.bits_per_weight - exact.bits_per_weight < 0.12
    nats, errors = seeing.curve.at(importance.astype(np.float64) / (4 * exact.multiplier))
    assert nats.sum() == pytest.approx(exact.nats[0], rel=1e-5)
    assert (importance * errors).sum() / 2 == pytest.approx(target, rel=1e-5)


def test_no_split_of_the_budget_is_better(rng):
    sources = [
        empirical_source(scale * rng.laplace(size=5000), rng.lognormal(size=5000))
        for scale in (0.1, 1.0)
    ]
    best = bound(sources, distortion=200.0)
    for moved in (-10, -1, 1, 10):
        parts = [
            bound([source], distortion=part)
            for source, part in zip(sources, best.distortion + np.array([moved, -moved]))
        ]
        assert sum(part.nats.sum() for part in parts) > best.nats.sum() - 1e-3
    again = bound_at(sources, best.multiplier)
    assert np.array_equal(again.nats, best.nats)


def test_tensors_that_do_not_matter():
    constant = gaussian_source(np.ones(3), np.ones(3))
    free = gaussian_source(np.arange(3.0), np.zeros(3))
    for target in ({"distortion": 1.0}, {"rate": 3.0}):
        point = bound([constant, free], **target)
        assert point.nats.tolist() == [0, 0] and point.distortion.tolist() == [0, 0]
    assert bound([], rate=1.0).nats.sum() == 0


def test_nonsense_is_refused():
    with pytest.raises(ImportanceError):
        gaussian_source(np.ones(2), -np.ones(2))
    with pytest.raises(SettingError):
        bound([gaussian_source(np.arange(2.0), np.ones(2))], distortion=math.nan)
