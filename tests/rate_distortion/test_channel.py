"""Algorithm 1, sampled: it meets the bound within the noise of the samples."""

import numpy as np
import pytest

from onnxrd.rate_distortion import (
    mutual_information,
    sample_channel,
    water_filling,
    water_levels,
)

SAMPLES = 100_000


@pytest.mark.parametrize("distortion", [1.5, 3, 5, 9, 12])
def test_worked_example_meets_the_bound(rng, distortion):
    variance = np.array([3.0, 2, 1])
    importance = 2 * variance
    filled = water_filling(variance, importance, distortion=distortion)
    w = np.sqrt(variance) * rng.standard_normal((SAMPLES, 3))
    v = sample_channel(w, variance, importance, filled.multiplier, rng)
    assert ((w - v) ** 2 @ importance / 2).mean() == pytest.approx(distortion, rel=0.01)
    assert mutual_information(w, v) == pytest.approx(filled.nats, rel=0.01)
    discarded = water_levels(variance, importance, filled.multiplier) == variance
    assert (v[:, discarded] == 0).all() and (v[:, ~discarded] != 0).all()
    error = w - v  # which the approximation tells nothing of
    assert abs(np.corrcoef(v[:, 0], error[:, 0])[0, 1]) < 4 / np.sqrt(SAMPLES)


@pytest.mark.parametrize("bits", [0.3, 1.0, 3.0])
def test_many_weights_of_varied_importance_meet_the_bound(rng, bits):
    """One draw of each of 10⁵ weights; the information is the mean of log p(ŵ|w)/p(ŵ)."""
    variance, importance = np.exp(rng.standard_normal((2, SAMPLES)))
    filled = water_filling(variance, importance, rate=bits * np.log(2) * SAMPLES)
    w = np.sqrt(variance) * rng.standard_normal(SAMPLES)
    v = sample_channel(w, variance, importance, filled.multiplier, rng)
    distortion = (importance * (w - v) ** 2).sum() / 2
    assert distortion == pytest.approx(filled.distortion, rel=0.01)
    sent = v != 0
    level = water_levels(variance, importance, filled.multiplier)[sent]
    share = 1 - level / variance[sent]
    noise = (v[sent] - share * w[sent]) ** 2 / (share * level)
    power = v[sent] ** 2 / (share * variance[sent])
    information = (np.log(variance[sent] / level) + power - noise).sum() / 2
    assert information == pytest.approx(filled.nats, rel=0.01)
