"""The search for a slope, and the ladders that it starts from."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd.allocation.ladder import (
    ladder,
    slope_for_bits,
    slope_for_distortion,
    steps_at,
    total_distortion,
)
from onnxrd.allocation.search import search


@given(
    st.floats(0.3, 3),
    st.floats(-4, 4),
    st.floats(0.01, 100),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_a_limit_on_a_power_law_is_kept_and_nearly_met(power, start, limit, rising, seed):
    noise = np.random.default_rng(seed)

    def attempt(slope):
        value = slope ** (power if rising else -power) * math.exp(0.002 * noise.normal())
        return value, value

    trials = search(
        attempt, math.exp(start), limit, rising=rising, within=0.03, bounds=(1e-30, 1e30)
    )
    kept = [t.value for t in trials if t.value <= limit]
    assert len(trials) <= 9
    assert max(kept) > 0.97 * limit


@given(
    st.floats(0.3, 3),
    st.floats(0.01, 100),
    st.booleans(),
    st.lists(st.floats(0.03, 30), min_size=1, max_size=5, unique=True),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_a_search_goes_on_from_what_is_known(power, limit, rising, slopes, seed):
    """It keeps the limit as well as a new one, and sooner if the limit lies between two known."""
    noise = np.random.default_rng(seed)

    def measured(slope):
        return slope ** (power if rising else -power) * math.exp(0.002 * noise.normal())

    known = {slope: measured(slope) for slope in slopes}
    made = []

    def attempt(slope):
        made.append(slope)
        value = known.get(slope) or measured(slope)
        return value, slope

    trials = search(
        attempt, 1.0, limit, rising=rising, within=0.03, bounds=(1e-30, 1e30), known=known
    )
    assert [t.outcome for t in trials] == made
    kept = [t.value for t in trials if t.value <= limit]
    assert max(kept) > 0.97 * limit
    assert len(made) <= (5 if min(known.values()) <= limit < max(known.values()) else 9)


@pytest.mark.parametrize("rising", [True, False])
def test_what_is_known_gives_way_to_what_is_measured(rising):
    """Values are a tenth higher than they were where they come from."""
    known = {s: s if rising else 1 / s for s in np.geomspace(0.9, 1.1, 21).tolist()}
    trials = search(
        lambda slope: (1.1 * (slope if rising else 1 / slope), slope),
        1.0,
        1.0,
        rising=rising,
        within=0.005,
        bounds=(1e-3, 1e3),
        known=known,
    )
    assert any(trial.value <= 1 for trial in trials)


def test_the_best_known_is_made_anew_if_nothing_better_is_found():
    """Values jump past the limit."""
    known = {1.0: 3.9, 1.5: 5.0}
    trials = search(
        lambda slope: (known.get(slope, 5.0), slope),
        9.0,
        4.0,
        rising=True,
        within=0.01,
        bounds=(0.1, 10.0),
        known=known,
        most=3,
    )
    assert [t.outcome for t in trials if t.value <= 4.0] == [1.0]
    assert len(trials) == 4


def test_a_narrow_gap_ends_a_search_where_values_jump():
    trials = search(
        lambda slope: (1.0 if slope < 2 else 9.0, slope),
        1.0,
        4.0,
        rising=True,
        within=0.01,
        bounds=(0.1, 100.0),
        narrow=0.2,
    )
    kept = max(t.position for t in trials if t.value <= 4)
    beyond = min(t.position for t in trials if t.value > 4)
    assert kept < math.log(2) <= beyond < kept + 0.2
    assert len(trials) < 9


def test_a_limit_out_of_reach_is_looked_for_up_to_the_bound():
    trials = search(
        lambda slope: (5 + slope, None), 1.0, 4.0, rising=True, within=0.03, bounds=(1e-3, 1e3)
    )
    assert min(t.position for t in trials) == pytest.approx(math.log(1e-3))
    assert all(t.value > 4 for t in trials)


def test_more_sensitive_tensors_get_finer_steps_by_the_square_root():
    weights = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    ladders = {"low": ladder(weights, 1e-4), "high": ladder(weights, 4e-4)}
    slope = slope_for_bits(list(ladders.values()), 3.0)
    steps = steps_at(ladders, slope)
    assert steps["low"] == pytest.approx(2 * steps["high"])
    bits = []
    for step in steps.values():
        share = np.unique(np.rint(weights / step), return_counts=True)[1] / weights.size
        bits.append(-(share * np.log2(share)).sum())
    assert np.mean(bits) == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("nats", [1e-3, 0.1, 5.0])
def test_a_slope_for_a_distortion(nats):
    weights = np.random.default_rng(1).normal(size=5000).astype(np.float32)
    ladders = [ladder(weights, 1e-4), ladder(weights[:700], 2e-2)]
    expected = total_distortion(ladders, slope_for_distortion(ladders, nats))
    assert expected == pytest.approx(nats, rel=0.15)  # eight steps to the factor of two


def test_a_distortion_that_is_never_reached_leaves_nothing():
    weights = np.random.default_rng(2).normal(size=5000).astype(np.float32)
    one = ladder(weights, 1e-4)
    assert one.bits[one.at(slope_for_distortion([one], 1e3))] < 0.02


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_the_coarsest_step_is_a_number_of_the_weights_type(dtype):
    weights = (1e4 * np.random.default_rng(3).normal(size=500)).astype(dtype)
    one = ladder(weights, 1e-4)
    step = one.step(one.largest_slope)
    assert step == pytest.approx(one.steps[-1])
    assert one.step(0.5 * one.largest_slope) < step
    assert np.isfinite(dtype(2 * step))
