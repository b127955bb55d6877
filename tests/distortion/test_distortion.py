"""Divergences and seeds, against direct formulas and exact enumeration."""

from itertools import pairwise, product

import numpy as np
import pytest

from onnxrd.distortion import (
    Head,
    classification_seed,
    distortion,
    log_probabilities,
    log_softmax,
    positions,
    regression_seed,
    sample_count,
    sampled_class_seed,
)
from tests import networks

LOGITS = Head("y", "classification", "logits", "y")
CHANNELS = Head("y", "classification", "logits", "y", axis=1)
VALUES = Head("y", "regression", "values", "y")


def softmax(z, axis=-1):
    e = np.exp(z - z.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def kl(p, q):
    """D_KL(p ‖ q) of two distributions, term by term."""
    return sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q) if a > 0)


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 6), (4, 2, 3, 6)])
def test_kl_divergence(shape):
    z, other = networks.normal(*shape), networks.normal(*shape, seed=1)
    p, q = softmax(z.astype(float)), softmax(other.astype(float))
    rows = zip(p.reshape(4, -1, 6), q.reshape(4, -1, 6))
    expected = [np.mean([kl(a, b) for a, b in zip(one, two)]) for one, two in rows]
    np.testing.assert_allclose(distortion(LOGITS, z, other), expected, rtol=1e-6)
    for form, f in (("probabilities", lambda v: v), ("log-probabilities", np.log)):
        head = Head("y", "classification", form, "a")
        np.testing.assert_allclose(distortion(head, f(p), f(q)), expected, rtol=1e-6)
    assert (distortion(LOGITS, z, z) == 0).all()
    assert (distortion(LOGITS, z, other) > 0).all()
    np.testing.assert_allclose(distortion(LOGITS, z, other + 7), expected, rtol=1e-5)
    moved = distortion(CHANNELS, np.moveaxis(z, -1, 1), np.moveaxis(other, -1, 1))
    np.testing.assert_allclose(moved, expected, rtol=1e-6)
    whole = Head("y", "classification", "logits", "y", sample_axis=False)
    np.testing.assert_allclose(distortion(whole, z, other), [np.mean(expected)], rtol=1e-6)


def test_kl_divergence_of_extremes():
    """No overflow, no NaN where a class cannot be, and infinity where it only could be."""
    z = np.array([[1000, -1000, 0], [3, 2, -np.inf]], np.float32)
    other = np.array([[999, -1000, 0], [2, 3, -np.inf]], np.float32)
    p, q = [0.7310586, 0.2689414, 0], [0.2689414, 0.7310586, 0]
    np.testing.assert_allclose(distortion(LOGITS, z, other), [0, kl(p, q)], atol=1e-6)
    probabilities = Head("y", "classification", "probabilities", "a")
    certain = np.array([[1, 0, 0]], np.float32)
    assert distortion(probabilities, certain, certain) == 0
    assert distortion(LOGITS, z[1:], np.array([[2, -np.inf, 3]], np.float32)) == np.inf
    assert np.isfinite(distortion(probabilities, certain, certain[:, ::-1]))


def test_the_kl_divergence_is_computed_in_double_precision():
    """One of 1e-11, as of many bits for each weight, would drown in float32."""
    z = networks.normal(3, 8).astype(np.float64)
    other = z + 1e-5 * networks.normal(3, 8, seed=1)
    f, d = softmax(z), other - z
    quadratic = 0.5 * ((f * d**2).sum(1) - (f * d).sum(1) ** 2)
    np.testing.assert_allclose(distortion(LOGITS, z, other), quadratic, rtol=1e-3)


def test_squared_error():
    a, b = networks.normal(4, 3, 2), networks.normal(4, 3, 2, seed=1)
    squares = (a.astype(float) - b) ** 2
    np.testing.assert_allclose(distortion(VALUES, a, b), squares.reshape(4, -1).sum(1))
    whole = Head("y", "regression", "values", "y", sample_axis=False)
    np.testing.assert_allclose(distortion(whole, a, b), [squares.sum()])
    scalar = np.float32(2), np.float32(-1)
    np.testing.assert_allclose(distortion(whole, *map(np.asarray, scalar)), [9])


@pytest.mark.parametrize("flattened", [False, True])
def test_log_probabilities_are_normalised(flattened):
    head = Head("y", "classification", "logits", "y", axis=1, flattened=flattened)
    found = log_probabilities(head, 30 * networks.normal(2, 3, 4))
    assert found.shape == ((2, 1, 12) if flattened else (2, 4, 3))
    assert found.dtype == np.float64
    np.testing.assert_allclose(np.exp(found).sum(-1), 1)
    assert log_softmax(np.array([1e4, -1e4])).tolist() == [0, -2e4]


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_seeds_have_the_fisher_information_as_second_moment(classes, temperature):
    """E[s sᵀ] = (diag f − f fᵀ)/T², exactly: over all signs, all unit vectors, all classes."""
    z = 2 * networks.normal(1, classes, seed=classes)
    f = softmax(z[0].astype(float) / temperature)
    expected = (np.diag(f) - np.outer(f, f)) / temperature**2

    def moment(seeds, weights):
        return sum(w * np.outer(s[0], s[0]) for s, w in zip(seeds, weights, strict=True))

    signs = [np.array(e, float).reshape(1, 1, -1) for e in product((-1, 1), repeat=classes)]
    seeds = [classification_seed(LOGITS, z, e, temperature) for e in signs]
    np.testing.assert_allclose(moment(seeds, [1 / 2**classes] * 2**classes), expected, atol=1e-12)
    units = [np.eye(classes)[k].reshape(1, 1, -1) for k in range(classes)]
    seeds = [classification_seed(LOGITS, z, e, temperature) for e in units]
    np.testing.assert_allclose(moment(seeds, [1] * classes), expected, atol=1e-12)
    edges = np.concatenate([[0], f.cumsum()])
    drawn = [np.full((1, 1), (a + b) / 2) for a, b in pairwise(edges)]
    seeds = [sampled_class_seed(LOGITS, z, u, temperature) for u in drawn]
    np.testing.assert_allclose(moment(seeds, f), expected, atol=1e-12)
    np.testing.assert_allclose(sum(s * p for s, p in zip(seeds, f)), 0, atol=1e-12)


def test_the_information_is_that_of_the_divergence():
    """½ dᵀ (diag f − f fᵀ) d is the divergence of a small move d of the logits."""
    z, d = networks.normal(1, 5).astype(float), 1e-4 * networks.normal(1, 5, seed=1).astype(float)
    units = [np.eye(5)[k].reshape(1, 1, 5) for k in range(5)]
    total = sum(float((classification_seed(LOGITS, z, e) * d).sum()) ** 2 for e in units)
    assert float(distortion(LOGITS, z, z + d)[0]) == pytest.approx(total / 2, rel=1e-3)


def test_a_class_that_cannot_be_has_no_seed():
    z = np.array([[1.0, -np.inf, 0.5]])
    seed = classification_seed(LOGITS, z, np.ones((1, 1, 3)))
    alone = classification_seed(LOGITS, z[:, [0, 2]], np.ones((1, 1, 2)))
    np.testing.assert_allclose(seed, [[alone[0, 0], 0, alone[0, 1]]])
    drawn = sampled_class_seed(LOGITS, z, np.full((1, 1), 0.99))
    np.testing.assert_allclose(drawn[0, 1], 0)


@pytest.mark.parametrize("top", [0.0, 1 - 1e-16])
def test_draws_at_the_ends(top):
    """The extremes of [0, 1) draw classes that can be, whatever rounding does to their sum."""
    z = networks.normal(50, 7).astype(float)
    seed = sampled_class_seed(LOGITS, z, np.full((50, 1), top))
    np.testing.assert_allclose(seed + softmax(z), np.eye(7)[[0 if top == 0 else 6] * 50], atol=1e-9)


def test_seeds_of_sequences_are_scaled_to_the_mean_over_positions():
    z = networks.normal(2, 3, 4)
    assert positions(LOGITS, z.shape) == (3, 4)
    assert positions(CHANNELS, z.shape) == (4, 3)
    directions = np.zeros((2, 3, 4))
    directions[:, 1, 2] = 1
    seed = classification_seed(LOGITS, z, directions)
    assert (seed[:, [0, 2]] == 0).all()
    alone = classification_seed(LOGITS, z[:, 1], directions[:, 1:2])
    np.testing.assert_allclose(seed[:, 1], alone / np.sqrt(3))
    moved = classification_seed(CHANNELS, np.moveaxis(z, -1, 1), directions)
    np.testing.assert_allclose(np.moveaxis(moved, 1, -1), seed)
    uniform = networks.rng().random((2, 3))
    drawn = sampled_class_seed(LOGITS, z, uniform)
    moved = sampled_class_seed(CHANNELS, np.moveaxis(z, -1, 1), uniform)
    np.testing.assert_allclose(np.moveaxis(moved, 1, -1), drawn)


def test_without_an_axis_of_samples_all_axes_are_positions():
    whole = Head("y", "classification", "logits", "y", sample_axis=False)
    z = networks.normal(5, 3, 4)
    assert sample_count(whole, z.shape) == 1
    assert positions(whole, z.shape) == (15, 4)
    directions = networks.normal(1, 15, 4, seed=1)
    seed = classification_seed(whole, z, directions)
    assert seed.shape == z.shape
    apart = classification_seed(LOGITS, z.reshape(15, 4), directions.reshape(15, 1, 4))
    np.testing.assert_allclose(seed.reshape(15, 4), apart / np.sqrt(15))
    values = Head("y", "regression", "values", "y", sample_axis=False)
    assert positions(values, (5, 3, 4)) == (1, 60)
    assert positions(values, ()) == (1, 1)


def test_old_softmax_takes_all_axes_together():
    head = Head("y", "classification", "probabilities", "a", axis=1, flattened=True)
    assert positions(head, (2, 3, 4)) == (1, 12)
    z, signs = networks.normal(2, 3, 4), np.sign(networks.normal(2, 1, 12, seed=1))
    seed = classification_seed(head, z, signs)
    flat = classification_seed(LOGITS, z.reshape(2, 12), signs)
    np.testing.assert_allclose(seed.reshape(2, 12), flat)


def test_regression_seed():
    assert positions(VALUES, (2, 3, 4)) == (1, 12)
    signs = np.sign(networks.normal(2, 1, 12))
    seed = regression_seed(np.zeros((2, 3, 4)), signs)
    np.testing.assert_allclose(seed, np.sqrt(2) * signs.reshape(2, 3, 4))
    every = [np.array(e, float).reshape(1, 1, 3) for e in product((-1, 1), repeat=3)]
    seeds = [regression_seed(np.zeros((1, 3)), e)[0] for e in every]
    np.testing.assert_allclose(sum(np.outer(s, s) for s in seeds) / 8, 2 * np.eye(3), atol=1e-12)
