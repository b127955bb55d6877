"""Grids and trellises, entropy-coded: paths against brute force, gaps against Shannon."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxrd.quantizers import on_grid, on_trellis, rule1_residual, state_bits
from onnxrd.quantizers.coded import FINEST, ideal_bits, thinned
from onnxrd.quantizers.trellis import units
from onnxrd.quantizers.viterbi import (
    SEGMENT,
    SHORT,
    branches,
    cheapest_path,
    nearest_branches,
    round_to_trellis,
)
from onnxrd.rate_distortion import BITS, empirical_curve, gaussian_rate

METHODS = (on_grid, on_trellis)


def entropy(codes):
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts / codes.size) @ np.log2(counts / codes.size))


def cost(costs, parities):
    """Of a path; the grids follow from the parities."""
    branches = 2 * state_bits(np.array(parities, np.int16)) + np.array(parities)
    return float(costs[branches, np.arange(costs.shape[1])].sum())


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32), st.sampled_from([1e-12, 1.0, 1e12]))
def test_the_cheapest_of_all_short_paths(n, seed, scale):
    costs = (scale * np.random.default_rng(seed).random((4, n))).astype(np.float32)
    branches, start, _ = cheapest_path(costs)
    assert start == 0
    assert (branches >> 1 == state_bits(branches & 1)).all()
    best = min(cost(costs, p) for p in itertools.product((0, 1), repeat=n))
    assert cost(costs, branches & 1) == pytest.approx(best)


def after(state, parity):
    """The next state: bits z_0 … z_4, what the past adds to Q_t … Q_{t+4}."""
    bits = [*state[1:], 0]
    bits[1] ^= state[0]  # Q_{t+2} and Q_{t+5} take Q_t
    bits[4] ^= state[0]
    bits[2] ^= parity  # Q_{t+3} takes p_t
    return tuple(bits)


def one_after_the_other(costs, starts):
    """State → cost of the cheapest path to it, by Viterbi's algorithm from beginning to end."""
    reached = dict.fromkeys(starts, 0.0)
    for column in costs.T.astype(float):
        found = {}
        for state, so_far in reached.items():
            for parity in (0, 1):
                total, new = so_far + column[2 * state[0] + parity], after(state, parity)
                found[new] = min(found.get(new, np.inf), total)
        reached = found
    return reached


ZERO = (0, 0, 0, 0, 0)


def bits_of(state):
    return tuple(state >> i & 1 for i in range(5))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.floats(0.1, 100), st.integers(0, 2**32))
def test_the_nearest_branches_are_the_cheapest_where_bits_are_free(n, scale, seed):
    weights = (scale * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)
    free = np.zeros(2 * int(np.abs(weights).max()) + 7, np.float32)
    costs, codes = nearest_branches(weights)
    expected, _ = branches(weights, np.ones_like(weights), free)
    np.testing.assert_allclose(costs, expected, atol=1e-4)
    levels = units(codes, np.arange(4)[:, None] >> 1)
    np.testing.assert_allclose((weights - levels) ** 2, costs, atol=1e-4)
    assert (codes & 1 == np.arange(4)[:, None] & 1).all()


@pytest.mark.parametrize("left", [1, 2, 3, 4, 5, 127])
def test_sizes_that_segments_do_not_divide(left):
    """However few steps are left for the first segment, its path meets that of the next."""
    sizes = [
        n
        for n in range(150 * SEGMENT, 300 * SEGMENT)
        if (n - 1) % -(-n // round(n / SEGMENT)) + 1 == left
    ]
    rng = np.random.default_rng(left)
    for n in rng.choice(sizes, 3):
        weight = rng.normal(size=n).astype(np.float32)
        error = np.abs(round_to_trellis(weight, 0.1).dequantize() - weight)
        assert error.max() < 0.2


def test_segments_lose_next_to_nothing():
    costs = np.random.default_rng(0).random((4, 40 * SEGMENT + 17)).astype(np.float32)
    branches, _, end = cheapest_path(costs)
    assert (branches >> 1 == state_bits(branches & 1)).all()
    exact = one_after_the_other(costs, [ZERO])
    least = min(exact.values())
    assert least * (1 - 1e-6) <= cost(costs, branches & 1) <= least * (1 + 5e-4)
    assert exact[bits_of(end)] <= least * (1 + 5e-4)


@pytest.mark.parametrize("n", [5, 7, 20, SHORT, 1500])
def test_from_any_state_to_a_given_one(n):
    costs = np.random.default_rng(n).random((4, n)).astype(np.float32)
    anywhere = [bits_of(state) for state in range(32)]
    for end in (3, 17, 31):
        branches, start, reached = cheapest_path(costs, None, end)
        assert reached == end
        total, state = 0.0, bits_of(start)
        for branch, column in zip(branches, costs.T.astype(float)):
            assert branch >> 1 == state[0]
            total, state = total + column[branch], after(state, branch & 1)
        assert state == bits_of(end)
        exact = one_after_the_other(costs, anywhere)[state]
        assert exact * (1 - 1e-6) <= total <= exact * (1 + (1e-6 if n <= SHORT else 1e-3))


@pytest.mark.parametrize("middle", [7, 300, 800])
def test_a_path_goes_on_where_another_ended(middle):
    costs = np.random.default_rng(1).random((4, 1500)).astype(np.float32)
    first, _, state = cheapest_path(costs[:, :middle])
    second, start, _ = cheapest_path(costs[:, middle:], state)
    branches = np.append(first, second)
    assert start == state
    assert (branches >> 1 == state_bits(branches & 1)).all()


@pytest.mark.parametrize("slope", [0.003, 0.02, 0.1])
@pytest.mark.parametrize(("method", "most"), [(on_grid, 0.27), (on_trellis, 0.13)])
def test_gap_to_shannons_bound(method, most, slope):
    weight = np.random.default_rng(2).standard_normal((200, 200)).astype(np.float32)
    quantized = method(weight, np.ones_like(weight), slope)
    error = float(np.mean((weight - quantized.dequantize()) ** 2))
    gap = entropy(quantized.codes) - BITS * gaussian_rate(float(np.mean(weight**2)), error)
    assert 0 < gap < most


def test_a_trellis_is_nearer_to_the_bound_of_a_laplacian_too():
    weight = np.random.default_rng(3).laplace(size=40_000).astype(np.float32)
    curve, gaps = empirical_curve(weight), []
    for method in METHODS:
        quantized = method(weight, np.ones_like(weight), 0.05)
        error = float(np.mean((weight - quantized.dequantize()) ** 2))
        gaps.append(entropy(quantized.codes) - BITS * float(curve.rate(error)))
    assert 0 < gaps[1] < gaps[0] - 0.08


@pytest.mark.parametrize("method", METHODS)
def test_cheaper_than_rounding(method):
    """½ h (w - ŵ)² + slope · bits, with importance that differs from weight to weight."""
    rng = np.random.default_rng(4)
    weight = rng.standard_normal(5000).astype(np.float32)
    importance, slope = rng.lognormal(size=5000).astype(np.float32), 0.05

    def total(approximation, codes):
        errors = importance * (weight - approximation).astype(float) ** 2
        return errors.sum() / 2 + slope * codes.size * entropy(codes)

    quantized = method(weight, importance, slope)
    step = np.sqrt(12 * slope / np.log(2) / importance.mean())
    codes = np.rint(weight / step)
    assert total(quantized.dequantize(), quantized.codes) < 0.98 * total(codes * step, codes)
    assert abs(rule1_residual(weight, quantized.dequantize(), importance)) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_units_do_not_matter(method):
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((30, 30)).astype(np.float32)
    importance = rng.random((30, 30)).astype(np.float32) + np.float32(0.1)
    one = method(weight, importance, 0.05)
    other = method(weight * 4, importance / 16, 0.05)
    assert (one.codes == other.codes).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (3, 0), (7, 5, 2)])
def test_any_shape_and_type(method, dtype, shape):
    weight = np.asarray(np.random.default_rng(6).standard_normal(shape), dtype)
    approximation = method(weight, np.ones(shape, np.float32), 0.01).dequantize()
    assert (approximation.shape, approximation.dtype) == (shape, dtype)
    assert np.abs(approximation.astype(float) - weight).max(initial=0) < 1


@pytest.mark.parametrize("method", METHODS)
def test_zeros_stay_zeros(method):
    zeros = np.zeros((4, 4), np.float32)
    assert not method(zeros, np.ones_like(zeros), 0.1).dequantize().any()


def test_codes_fit_into_eight_bits_whatever_lies_outside():
    weight = np.append(np.random.default_rng(7).standard_normal(999), 1e4).astype(np.float32)
    trellis = on_trellis(weight, np.ones_like(weight), 1e-6)
    assert FINEST - 3 <= np.abs(trellis.codes).max() < 128


def test_bits_are_those_of_an_ideal_code():
    codes = np.repeat([-1, 0, 2], [100_000, 300_000, 400_000])
    bits = ideal_bits(codes, 3)
    assert bits[[2, 3, 5]] == pytest.approx([3, np.log2(8 / 3), 1], abs=1e-4)
    assert bits[0] > 18


def test_thinned_takes_runs_from_everywhere():
    weight = np.arange(500_000.0)
    some, costs = thinned(weight, weight + 1)
    assert (costs == some + 1).all()
    assert some[0] == 0 and some[-1] == len(weight) - 1
    assert np.diff(some).max() < 3000
