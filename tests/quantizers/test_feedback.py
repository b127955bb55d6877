"""Error feedback against what it promises, and against independent estimators."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import oas

from onnxrd.importance.moments import Moments
from onnxrd.quantizers.feedback import (
    SecondMoment,
    error_feedback,
    repaired_target,
    step_of_bias,
    trust_in_repair,
)

STEP = 0.3


def moment(rng, groups, size, count=400):
    x = rng.normal(size=(groups, count, size)) @ rng.normal(size=(groups, size, size))
    return SecondMoment.of(x.transpose(0, 2, 1) @ x / count, count)


def cost(errors, inputs, outputs=None):
    """tr(G E H Eᵀ)."""
    second = np.eye(errors.shape[1])[None] if outputs is None else outputs.values
    return np.einsum("grk,gkl,gsl,grs->", errors, inputs.values, errors, second, optimize=True)


@given(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_what_is_left_of_each_error_is_a_rounding_error(groups, rows, columns, seed):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(groups, rows, columns))
    inputs, outputs = moment(rng, groups, columns), moment(rng, groups, rows)
    found = error_feedback(target, inputs, STEP, outputs)
    errors = (found * STEP - target) / STEP
    left, order = unit_factor(outputs)
    errors = np.take_along_axis(errors, order[:, :, None], axis=1)
    right, order = unit_factor(inputs)
    errors = np.take_along_axis(errors, order[:, None, :], axis=2)
    rounding = left.transpose(0, 2, 1) @ errors @ right
    assert np.abs(rounding).max() <= 0.5 + 1e-3


def unit_factor(second):
    """M, upper triangular with ones on the diagonal, so that M D Mᵀ is the damped moment."""
    damped = second.values + second.ridge(0.01)
    order = np.argsort(-np.einsum("gkk->gk", damped), axis=1, kind="stable")
    factors = []
    for matrix, one in zip(damped, order, strict=True):
        matrix = matrix[np.ix_(one, one)]
        size = len(matrix)
        factor = np.eye(size)
        for last in range(size - 1, -1, -1):  # elimination from the last entry to the first
            factor[:last, last] = matrix[:last, last] / matrix[last, last]
            matrix = matrix - matrix[last, last] * np.outer(factor[:, last], factor[:, last])
            matrix[last] = matrix[:, last] = 0
            matrix[last, last] = 1
        factors.append(factor)
    return np.stack(factors), order


@given(st.integers(1, 3), st.integers(1, 40), st.integers(2, 70), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_rounded_bias_costs_about_what_a_weight_costs(groups, rows, columns, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, 400, columns)) @ rng.normal(size=(groups, columns, columns))
    x -= x.mean(axis=1, keepdims=True)
    second = x.transpose(0, 2, 1) @ x / 400
    target = rng.normal(size=(groups, rows, columns))
    errors = error_feedback(target, SecondMoment.of(second, 400), STEP) * STEP - target
    weights = np.mean(np.einsum("gnk,grk->gnr", x, errors) ** 2)
    step = step_of_bias(errors, second)
    assert np.log2(step) == int(np.log2(step))
    bias = rng.uniform(-100, 100, 10_000) * step
    rounding = np.mean((bias - np.rint(bias / step) * step) ** 2)
    assert 0.24 * weights / columns < rounding < 1.02 * weights / columns


def test_a_bias_of_weights_without_errors_is_not_rounded():
    assert step_of_bias(np.zeros((1, 3, 4)), np.eye(4)[None]) == 0


def test_outputs_that_are_all_alike_change_nothing():
    rng = np.random.default_rng(1)
    target, inputs = rng.normal(size=(2, 45, 70)), moment(rng, 2, 70)
    alike = SecondMoment(np.broadcast_to(np.eye(45), (2, 45, 45)), np.zeros(2))
    found = error_feedback(target, inputs, STEP, alike)
    np.testing.assert_array_equal(found, error_feedback(target, inputs, STEP))


def test_each_side_lowers_the_cost():
    rng = np.random.default_rng(2)
    target = rng.normal(size=(1, 60, 80))
    inputs, outputs = moment(rng, 1, 80), moment(rng, 1, 60)
    plain = np.rint(target / STEP) * STEP
    one = error_feedback(target, inputs, STEP) * STEP
    both = error_feedback(target, inputs, STEP, outputs) * STEP
    costs = [cost(found - target, inputs, outputs) for found in (plain, one, both)]
    assert costs[1] < 0.7 * costs[0]
    assert costs[2] < 0.7 * costs[1]


def test_doubt_is_that_of_oracle_approximating_shrinkage():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(80, 60)) * np.linspace(1, 3, 60)
    _, share = oas(x, assume_centered=True)  # leaves out terms of 2/60
    (found,) = SecondMoment.of((x.T @ x / len(x))[None], len(x)).doubt
    assert 0.2 < share < 0.8
    assert found / (1 + found) == pytest.approx(share, rel=2 / 60)


def test_the_repaired_target_is_the_best_one():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(500, 9))
    damaged = x + 0.3 * rng.normal(size=x.shape) @ rng.normal(size=(9, 9))
    matrices = rng.normal(size=(1, 4, 9))
    inputs = SecondMoment((damaged.T @ damaged / 500)[None], np.zeros(1))
    target = repaired_target(matrices, inputs, (x.T @ damaged / 500)[None])

    def loss(found):
        ridge = 0.05 * np.trace(inputs.values[0]) / 9
        moved = np.sum((x @ matrices[0].T - damaged @ found.T) ** 2) / 500
        return moved + ridge * np.sum((matrices[0] - found) ** 2)

    least = loss(target[0])
    assert least < loss(matrices[0])
    for _ in range(50):
        assert least <= loss(target[0] + 0.01 * rng.normal(size=(4, 9)))


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_inputs_that_do_not_vary_behind_coarse_layers(centred, level):
    """All weights of the layer before are rounded to zero: what is left of x̂ is its bias."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1, 37, 24)).astype(np.float32)
    still = (level * rng.normal(size=24)).astype(np.float32)
    moments = Moments(1, 24)
    moments.add(x, 37, np.broadcast_to(still, x.shape))
    second, cross = moments.second(centred=centred)
    inputs = SecondMoment.of(second, moments.draws)
    matrices = rng.normal(size=(1, 4, 24))
    target = repaired_target(matrices, inputs, cross)
    assert np.isfinite(target).all()
    if centred or not level:  # nothing can be made good
        np.testing.assert_allclose(target, matrices, rtol=0.2, atol=0.2)
    assert np.abs(error_feedback(target, inputs, STEP)).max() < 100 / STEP


def test_positions_of_a_sample_are_no_independent_draws():
    """What a few samples have in common at all their positions is not taken for what all have."""
    rng = np.random.default_rng(6)
    matrices = rng.normal(size=(1, 200, 64))

    def positions(samples):
        common = rng.normal(size=(samples, 1, 64)) * np.linspace(0.5, 2, 64)
        every = common + 0.5 * rng.normal(size=(samples, 50, 64))
        return every.reshape(1, -1, 64).astype(np.float32)

    moments, new = Moments(1, 64), positions(2000)[0]
    moments.add(positions(60), 60)
    assert moments.draws < moments.count
    second, _ = moments.second(centred=False)
    losses = []
    for draws in (moments.draws, moments.count):
        integers = error_feedback(matrices, SecondMoment.of(second, draws), 0.5)
        losses.append(np.mean((new @ (matrices[0] - 0.5 * integers[0]).T) ** 2))
    assert losses[0] < 0.9 * losses[1]


def folds_of(x, xq):
    """Moments E[x̂ x̂ᵀ] and E[x x̂ᵀ] of two halves of the samples."""
    halves = []
    for fold in (0, 1):
        moments = Moments(1, x.shape[1])
        moments.add(x[None, fold::2], len(x[fold::2]), xq[None, fold::2])
        halves.append(moments.second(centred=False))
    return halves


@pytest.mark.parametrize("samples", [30, 100, 3000])
def test_a_repair_is_trusted_as_far_as_it_helps_other_samples(samples):
    """On new samples that is about as good as the best of a few shares in hindsight."""
    doubt, parts, losses = np.array([0.0]), (0.0, 0.25, 0.5, 0.75, 1.0), []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mixed, matrices = rng.normal(size=(24, 24)) / 5, rng.normal(size=(1, 8, 24))
        x = rng.normal(size=(samples + 2000, 24)).astype(np.float32)
        damaged = x + 0.3 * x @ mixed + 0.5 * rng.normal(size=x.shape)
        xq = damaged.astype(np.float32)
        one, other = folds_of(x[:samples], xq[:samples])
        share = trust_in_repair(matrices, doubt, one, other)
        second, cross = ((a + b) / 2 for a, b in zip(one, other))
        whole = repaired_target(matrices, SecondMoment(second, doubt), cross) - matrices
        new, behind = x[samples:] @ matrices[0].T, xq[samples:]
        left = [new - behind @ (matrices[0] + part * whole[0]).T for part in (share, *parts)]
        losses.append([np.mean(one**2) for one in left])
    trusted, *others = np.mean(losses, axis=0)
    assert trusted < 1.05 * min(others)


def test_no_repair_where_nothing_is_broken():
    x = np.random.default_rng(8).normal(size=(60, 12)).astype(np.float32)
    matrices = np.random.default_rng(9).normal(size=(1, 4, 12))
    assert trust_in_repair(matrices, np.array([0.1]), *folds_of(x, x)) == 0
    still = np.zeros_like(x)
    assert 0 <= trust_in_repair(matrices, np.array([0.1]), *folds_of(x, still)) <= 1
