"""Quantized weights on disk: a large model has no room for all of them in memory at once."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxrd.quantizers.quantized import Array, Codebook, LateCodebook, LateSparse, Quantized, Sparse


class Shelf:
    """Puts quantized weights aside, each in a file of its own.

    Args:
        folder: an existing one, for the shelf alone; to be removed after the last use.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0

    def put(self, quantized: Quantized) -> Quantized:
        """The same weight, out of memory until its codes or values are asked for.

        Only codebooks of single weights and sparse weights are; others stay as they are.
        """
        if not isinstance(quantized, Codebook | Sparse):
            return quantized
        self._count += 1
        path = self._folder / f"{self._count}.npy"
        array = quantized.codes if isinstance(quantized, Codebook) else quantized.values
        np.save(path, array, allow_pickle=False)
        if isinstance(quantized, Codebook):
            return LateCodebook(
                partial(_mapped, path, array.dtype), quantized.shape, quantized.levels
            )
        return LateSparse(partial(_mapped, path, array.dtype), quantized.shape)


def _mapped(path: Path, dtype: np.dtype[Any]) -> Array:
    """The array of a file, as the type that it had (files know nothing of bfloat16)."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)).view(dtype)
