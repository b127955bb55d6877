import numpy as np
import pytest

from onnxrd.graph.specs import InputSpec


def spec(name, shape, dtype=np.float32):
    return InputSpec(name, np.dtype(dtype), shape)


@pytest.fixture
def image():
    """A model with one image input."""
    return (spec("image", ("N", 3, 4, 4)),)


@pytest.fixture
def text():
    """A model with two inputs."""
    return (spec("ids", ("N", "T"), np.int64), spec("mask", ("N", "T"), np.float32))


@pytest.fixture
def recurrent():
    """A model whose state has no sample axis."""
    return (spec("x", ("T", 1, 5)), spec("state", (2, 1, 7)), spec("rate", (), np.int64))


@pytest.fixture
def images():
    """[10, 3, 4, 4]; sample n is filled with n."""
    return np.tile(np.arange(10, dtype=np.float32)[:, None, None, None], (1, 3, 4, 4))
