"""Which of several ways is taken."""

import numpy as np

from onnxrd.compression.held_out import best_of


def damage(mean, seed=0, spread=0.3):
    """Of 200 samples, of that mean exactly."""
    smooth = 1 + spread * np.random.default_rng(seed).standard_normal(200)
    return mean * smooth / smooth.mean()


def test_the_first_unless_another_is_clearly_better():
    assert best_of([damage(1.0), damage(0.7)], [3.0, 3.0]) == 1
    assert best_of([damage(1.0), damage(1.2)], [3.0, 3.0]) == 0
    assert best_of([damage(1.0), damage(0.7, 1, 8.0)], [3.0, 3.0]) == 0  # by a few samples


def test_what_another_rounding_may_change_is_not_clear():
    assert best_of([damage(1.0), damage(0.9)], [3.0, 3.0]) == 0


def test_a_bit_divides_damage_by_four():
    assert best_of([damage(1.0), damage(1.0)], [3.0, 2.5]) == 1
    assert best_of([damage(1.0), damage(0.7)], [3.0, 3.5]) == 0


def test_the_best_of_those_that_are_clearly_better():
    assert best_of([damage(1.0), damage(0.6), damage(0.4), damage(0.5)], [3.0] * 4) == 2
