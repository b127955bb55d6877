"""Theorem 4 and its corollaries by exhaustive search, and where they end.

A ReLU of Gaussian inputs with variances σ²; its importance is diag σ², its error known exactly.
"""

from itertools import product

import numpy as np
import pytest

from onnxrd.rate_distortion import (
    quadratic_distortion,
    relu_error,
    rule1_residual,
    rule2_residual,
)


def unit(seed, n):
    """A unit's weights [1, n], the variances of its inputs [n], its importance [1, n]."""
    rng = np.random.default_rng(seed)
    variance = rng.lognormal(size=n)
    return rng.standard_normal((1, n)), variance, variance[None]


def centroids(weight, importance, levels):
    """Every assignment to so many levels, each level the weighted mean of its weights."""
    n = weight.size
    codes = np.array([c for c in product(range(levels), repeat=n) if c[0] == 0])
    member = codes[:, :, None] == np.arange(levels)
    mass = (member * importance.T).sum(axis=1)
    moment = (member * (importance * weight).T).sum(axis=1)
    means = np.divide(moment, mass, out=np.zeros_like(moment), where=mass > 0)
    return np.take_along_axis(means, codes, axis=1)[:, None, :], member


@pytest.mark.parametrize("seed", range(20))
def test_corollary_1_pruning(seed):
    weight, variance, importance = unit(seed, 8)
    masks = np.array(list(product([0, 1], repeat=8)))[:, None, :]
    residuals = rule1_residual(weight, masks * weight, importance)
    assert np.abs(residuals).max() == 0  # every mask keeps rule 1
    for kept in range(1, 8):
        rivals = masks[masks.sum(axis=(1, 2)) == kept] * weight
        error = relu_error(weight, rivals, variance)
        excess = rule2_residual(weight, rivals, importance, rivals)
        assert excess.argmin() == error.argmin()
        largest = np.sort((importance * weight**2).ravel())[-kept:]
        chosen = rivals[error.argmin()]  # pruning by importance · weight² finds it
        assert (importance * chosen**2).sum() == pytest.approx(largest.sum())


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_corollary_2_of_all_codebooks_that_keep_rule_1(seed, levels):
    weight, variance, importance = unit(seed, 7)
    rivals, _ = centroids(weight, importance, levels)
    assert np.abs(rule1_residual(weight, rivals, importance)).max() < 1e-13
    best = rivals[relu_error(weight, rivals, variance).argmin()]
    assert rule2_residual(weight, best, importance, rivals) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_theorem_4_among_all_that_keep_rule_1(seed):
    """Whatever the constraint: the error falls as the quadratic form does."""
    weight, variance, importance = unit(seed, 5)
    directions = np.random.default_rng(seed).standard_normal((1000, 1, 5)) + weight
    kept = directions * (1 + rule1_residual(weight, directions, importance))[:, None, None]
    order = np.argsort(quadratic_distortion(weight, kept, importance))
    assert (np.diff(relu_error(weight, kept, variance)[order]) > -1e-12).all()


def test_quantization_at_low_correlation_is_better_off_without_rule_1():
    """A counter-example to corollary 2 as printed: two weights, one level, correlation 0.8."""
    weight, variance = np.array([[0.2, 1.4]]), np.array([0.5, 0.5])
    golden, _ = centroids(weight, variance[None], 1)
    assert golden == pytest.approx(0.8)
    levels = np.arange(0.7, 0.9, 1e-5)[:, None, None] * np.ones((1, 2))
    error = relu_error(weight, levels, variance)
    best = levels[error.argmin()]
    assert best == pytest.approx(0.82712, abs=1e-5)
    assert relu_error(weight, golden, variance) == pytest.approx(0.158304, abs=1e-6)
    assert error.min() == pytest.approx(0.157936, abs=1e-6)
    assert rule1_residual(weight, best, variance[None]) == pytest.approx(-0.0328, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_codebook_is_the_golden_one_made_longer(seed):
    """So the assignment of k-means is right even there; only a common factor is lost."""
    weight, variance, importance = unit(seed, 6)
    golden, member = centroids(weight, importance, 2)
    energy = (importance * golden * weight).sum(axis=(1, 2)) / (importance * weight**2).sum()
    angle = np.arccos(np.sqrt(energy))
    factor = (np.tan(angle) + np.pi - angle) / np.pi
    longer = factor[:, None, None] * golden
    error = relu_error(weight, longer, variance)
    assert (error <= relu_error(weight, golden, variance) + 1e-15).all()
    assert error.argmin() == relu_error(weight, golden, variance).argmin()
    shifts = 0.02 * np.random.default_rng(seed).standard_normal((200, 2))
    rivals = longer[error.argmin()] + (member[error.argmin()] @ shifts.T).T[:, None, :]
    assert (relu_error(weight, rivals, variance) >= error.min()).all()


def test_units_that_share_one_budget():
    """Two units may keep two weights between them: rule 2 prunes 0.73, and 0.75 would be better."""
    weight, variance = np.array([[0.73, 0], [1, 0.75]]), np.ones(2)
    pruned = np.array([[[0, 0], [1, 0.75]], [[0.73, 0], [1, 0]]])
    predicted = quadratic_distortion(weight, pruned, np.ones((2, 2)))
    error = relu_error(weight, pruned, variance)
    assert predicted == pytest.approx([0.26645, 0.28125])
    assert error == pytest.approx([0.26645, 0.24735], abs=1e-5)
