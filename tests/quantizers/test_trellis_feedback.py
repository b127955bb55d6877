"""Error feedback on a trellis: valid paths through columns in any order, and what they gain."""

import numpy as np
import pytest

from onnxrd.quantizers.feedback import DAMPING, SecondMoment, error_feedback, spread_of_errors
from onnxrd.quantizers.trellis import state_bits, units
from onnxrd.quantizers.trellis_feedback import trellis_feedback
from onnxrd.quantizers.viterbi import COARSER


def problem(groups, rows, columns, seed=0):
    """A layer of Gaussian weights and correlated inputs."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((groups, columns, columns)) * 2 ** rng.uniform(-2, 2, columns)
    second = SecondMoment(mixed @ mixed.transpose(0, 2, 1) / columns, np.zeros(groups))
    return rng.standard_normal((groups, rows, columns)), second


def entropy(codes):
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts / codes.size) @ np.log2(counts / codes.size))


def error(target, approximation, inputs):
    """Of the output, with the damping that both kinds of feedback reckon with."""
    left = target - approximation
    return float(np.einsum("grk,gkl,grl->", left, inputs.values + inputs.ridge(DAMPING), left))


@pytest.mark.parametrize("shape", [(1, 60, 9), (1, 300, 7), (64, 1, 9), (3, 20, 70)])
def test_the_codes_in_their_order_decode_to_the_levels(shape):
    target, inputs = problem(*shape)
    codes, levels = trellis_feedback(target, inputs, 0.7)
    stream = codes.transpose(2, 0, 1).ravel()
    decoded = units(stream, state_bits(stream)).reshape(codes.transpose(2, 0, 1).shape)
    assert (decoded.transpose(1, 2, 0) == levels).all()


def test_fewer_bits_than_a_grid_for_the_same_error():
    target, inputs = problem(1, 256, 80)
    step = 0.6
    integers = error_feedback(target, inputs, step)
    codes, levels = trellis_feedback(target, inputs, step * COARSER)
    before = error(target, integers * step, inputs)
    after = error(target, levels * step * COARSER, inputs)
    saved = entropy(integers) - entropy(codes) + np.log2(before / after) / 2
    assert 0.11 < saved < 0.25


def test_errors_are_fed_back():
    target, inputs = problem(1, 64, 40)
    _, levels = trellis_feedback(target, inputs, 1.0)
    alone = np.eye(40)[None] * np.einsum("gkk->gk", inputs.values)[:, :, None]
    _, apart = trellis_feedback(target, SecondMoment(alone, np.zeros(1)), 1.0)
    assert error(target, levels, inputs) < 0.6 * error(target, apart, inputs)


def test_one_order_for_all_groups():
    _, inputs = problem(3, 1, 12)
    order, spread = spread_of_errors(inputs, common=True)
    assert (order == order[0]).all()
    assert (np.diff(np.einsum("gkk->k", inputs.values)[order[0]]) <= 0).all()
    assert np.triu(spread[1]) == pytest.approx(spread[1], abs=1e-5)
