"""How many samples go together, and batches filled up to that."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.autodiff.trace import Trace
from onnxrd.calibration import Batch

Array = NDArray[Any]

LARGEST_BATCH = 16
"""Larger ones are slower: what one operator hands to the next no longer fits into the caches."""

MEMORY = 1 << 29
"""Bytes that one batch's intermediate values may take, roughly."""


def masked(seed: Array, real: int) -> Array:
    """Cotangents that are zero for the samples that only fill the batch."""
    return seed if len(seed) == real else np.concatenate([seed[:real], 0 * seed[real:]])


def padded(batch: Batch, size: int) -> Batch:
    """Repeat the last sample up to the full size."""
    missing = size - batch.size
    if missing <= 0:
        return batch
    feeds = {
        name: np.concatenate([feed, np.repeat(feed[-1:], missing, axis=0)])
        if len(feed) == batch.size
        else feed
        for name, feed in batch.feeds.items()
    }
    return Batch(feeds, batch.labels, batch.size)


def batch_size(trace: Trace) -> int:
    """Samples whose activations, windows and gradients fit in the memory set aside.

    Those of an embedding take no room: only rows that come up are made.
    """
    activations = [int(np.prod(s)) for v, s in trace.shapes.items() if not v.is_initializer()]
    weights = [
        int(np.prod(s))
        for v, s in trace.shapes.items()
        if v.is_initializer() and any(node.op_type != "Gather" for node, _ in v.uses())
    ]
    nbytes = 4 * (3 * sum(activations) + 16 * max(activations) + 2 * max(weights, default=0))
    return int(np.clip(MEMORY // nbytes, 1, LARGEST_BATCH))


def repeated(batch: Batch, sample: int, size: int) -> dict[str, Array]:
    """Feeds of one sample, so many times."""
    return {
        name: np.repeat(feed[sample : sample + 1], size, axis=0)
        for name, feed in batch.feeds.items()
    }
