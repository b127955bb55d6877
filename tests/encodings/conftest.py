"""Fixtures for encodings."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    """The same numbers for a test whatever other tests run before it."""
    return np.random.default_rng(3)
