"""Weights put aside on disk are what they were, and take no memory meanwhile."""

import tracemalloc

import numpy as np
import pytest

from onnxrd import encodings
from onnxrd.quantizers import Codebook, Shelf, Sparse, VectorCodebook
from tests.networks import rng


def codebook(entries, levels=16):
    codes = rng(1).integers(0, levels, entries).astype(np.uint8)
    return Codebook(codes, np.linspace(-1, 1, levels, dtype=np.float32))


@pytest.mark.parametrize("quantized", [codebook((7, 9)), Sparse(np.eye(5, dtype=np.float16))])
def test_what_comes_back_is_the_same(quantized, tmp_path):
    shelf = Shelf(tmp_path)
    shelved = shelf.put(quantized)
    shelf.put(codebook((3, 3)))
    assert type(shelved).__bases__ == (type(quantized),)
    assert shelved.shape == quantized.shape
    np.testing.assert_array_equal(shelved.dequantize(), quantized.dequantize())
    assert shelved.dequantize().dtype == quantized.dequantize().dtype
    if isinstance(quantized, Codebook):
        np.testing.assert_array_equal(shelved.counts, quantized.counts)
        np.testing.assert_array_equal(shelved.codes, quantized.codes)


def test_vectors_stay_as_they_are(tmp_path):
    book = VectorCodebook(np.zeros(3, np.uint8), np.ones((1, 2), np.float32), (5,))
    assert Shelf(tmp_path).put(book) is book
    assert not list(tmp_path.iterdir())


def test_priced_weights_take_no_memory(tmp_path):
    """Only what is written is read again."""
    shelf, entries = Shelf(tmp_path), 1 << 20
    slot = encodings.Slot("w", 21, 10)
    shelved = shelf.put(codebook(entries))
    tracemalloc.start()
    fragments = encodings.options(shelved, slot)
    prices = [fragment.nbytes for fragment in fragments]
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {f.encoding for f in fragments} == {"dense", "native_int4", "byte_lut", "byte_codes"}
    assert min(prices) < entries < max(prices)
    assert kept < entries / 8
    assert peak < 20 * entries  # counting levels
