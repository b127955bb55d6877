"""The golden rules as residuals: who keeps them, and who does not."""

import numpy as np
import pytest

from onnxrd.errors import ImportanceError
from onnxrd.rate_distortion import (
    quadratic_distortion,
    relu_error,
    rule1_residual,
    rule2_residual,
)


@pytest.fixture
def case(rng):
    return rng.standard_normal(5000), rng.lognormal(size=5000)


def lloyd(weight, importance, levels, rounds=50):
    """Weighted k-means, as plain as can be."""
    centres = np.quantile(weight, (np.arange(levels) + 0.5) / levels)
    for _ in range(rounds):
        codes = np.abs(np.subtract.outer(weight, centres)).argmin(axis=1)
        masses = np.bincount(codes, importance, levels)
        centres = np.bincount(codes, importance * weight, levels) / masses
    return centres[codes]


@pytest.mark.parametrize("levels", [2, 4, 16])
def test_rule_1_holds_for_weighted_kmeans(case, levels):
    weight, importance = case
    assert abs(rule1_residual(weight, lloyd(weight, importance, levels), importance)) < 1e-15


def test_rule_1_holds_exactly_for_pruning(case):
    weight, importance = case
    kept = importance * weight**2 > np.median(importance * weight**2)
    assert rule1_residual(weight, kept * weight, importance) == 0
    assert rule1_residual(weight, 0 * weight, importance) == 0


@pytest.mark.parametrize(("step", "residual"), [(0.5, -0.02), (1.0, -0.08), (2.0, -0.24)])
def test_rule_1_fails_for_plain_rounding(case, step, residual):
    weight, importance = case
    rounded = np.round(weight / step) * step
    found = rule1_residual(weight, rounded, importance)
    assert found == pytest.approx(residual, abs=0.02)
    repaired = rounded * (1 + found)  # as rule 1 asks
    before, after = (quadratic_distortion(weight, v, importance) for v in (rounded, repaired))
    assert after < before and abs(rule1_residual(weight, repaired, importance)) < 1e-15


def test_rules_with_a_full_matrix(rng):
    weight = rng.standard_normal((2, 4))
    root = rng.standard_normal((8, 8))
    matrix = root @ root.T
    kept = np.arange(8) % 3 > 0
    refit = np.zeros(8)  # the best values of those kept: optimal brain surgeon
    inner = matrix[np.ix_(kept, kept)]
    refit[kept] = np.linalg.solve(inner, matrix[kept] @ weight.ravel())
    candidates = np.stack([refit, kept * weight.ravel()]).reshape(2, 2, 4)
    residuals = rule1_residual(weight, candidates, matrix)
    assert abs(residuals[0]) < 1e-13 < 1e-3 < abs(residuals[1])
    excess = rule2_residual(weight, candidates, matrix, candidates)
    assert excess[0] == 0 < excess[1]
    error = (weight - candidates[1]).ravel()
    assert quadratic_distortion(weight, candidates[1], matrix) == pytest.approx(
        error @ matrix @ error / 2
    )


def test_a_diagonal_matrix_is_a_vector(rng):
    weight, approximation = rng.standard_normal((2, 3, 5)).astype(np.float32)
    importance = rng.lognormal(size=(3, 5)).astype(np.float32)
    for measure in (quadratic_distortion, rule1_residual):
        diagonal = measure(weight, approximation, importance)
        full = measure(weight, approximation, np.diag(importance.ravel()))
        assert diagonal == pytest.approx(float(full), rel=1e-12) and diagonal.dtype == np.float64
    with pytest.raises(ImportanceError):
        quadratic_distortion(weight, approximation, importance.T)


def test_relu_error_against_quadrature(rng):
    """For two inputs the mean over the circle is exact: relu is homogeneous, E|x|² = 2."""
    angles = 2 * np.pi * np.arange(100_000) / 100_000
    variance = np.array([0.5, 3.0])
    inputs = np.sqrt(2 * variance) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    weight = rng.standard_normal((3, 2))
    others = np.concatenate([rng.standard_normal((4, 3, 2)), [weight, -weight, 0 * weight]])
    closed = relu_error(weight, others, variance)
    outputs, wrong = np.maximum(inputs @ weight.T, 0), np.maximum(inputs @ others.mT, 0)
    np.testing.assert_allclose(closed, ((outputs - wrong) ** 2).sum(-1).mean(-1), atol=1e-8)


def test_importance_predicts_small_relu_errors(rng):
    weight = rng.standard_normal((3, 6))
    variance = rng.lognormal(size=6)
    importance = np.broadcast_to(variance, weight.shape)
    near = weight + 1e-3 * rng.standard_normal(weight.shape)
    error = relu_error(weight, near, variance)
    assert error == pytest.approx(quadratic_distortion(weight, near, importance), rel=1e-2)
