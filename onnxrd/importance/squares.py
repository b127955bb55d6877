"""Squared per-sample gradients over data: what every diagonal importance is made of."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxrd.autodiff.engine import Mode
from onnxrd.autodiff.gradients import (
    Gradients,
    batched_squares,
    reference_squares,
    why_not_batched,
)
from onnxrd.autodiff.trace import Trace
from onnxrd.calibration import Batch, Calibration
from onnxrd.errors import ImportanceError, ModelError
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime
from onnxrd.graph.weights import find_weights
from onnxrd.progress import Track

Array = NDArray[np.float32]
log = logging.getLogger(__name__)

LARGEST_BATCH = 16
"""Larger ones are slower: what one operator hands to the next no longer fits into the caches."""

MEMORY = 1 << 29
"""Bytes that one batch's intermediate values may take, roughly."""


@dataclass(frozen=True, eq=False)
class Pass:
    """One reverse pass over a batch.

    Attributes:
        seeds: [N, …] cotangents, by name of the value that they start at.
        factor: what the squared gradients are multiplied with.
    """

    seeds: Mapping[str, Array]
    factor: float


PassesOf = Callable[[Mapping[str, Array], Batch, int], Iterable[Pass]]
"""(arrays at the sources, the batch they are of, number of its first sample) → reverse passes."""


class Squares:
    """Σ over reverse passes of squared per-sample gradients, for the weights to be compressed.

    Args:
        model: the network.
        data: samples.
        sources: names of the values that cotangents start at.
        passes_of: which cotangents.
        batched: take the batched path if it agrees with one sample at a time.
        runtime: threads and provider.

    Attributes:
        blocked: weights without a derivative: name → the operator in the way.
        reachable: names of the other weights.
        path: "batched", or "one sample at a time" with the reason.

    Raises:
        ImportanceError: no weights to compress.
        ModelError: a weight is not finite.
        CalibrationError: the data do not fit.
    """

    def __init__(
        self,
        model: Model,
        data: Calibration,
        sources: Sequence[str],
        passes_of: PassesOf,
        *,
        batched: bool = True,
        runtime: Runtime = DEFAULT,
    ) -> None:
        prepared, base = model.prepared(), model.path.parent
        weights = [w for w in find_weights(model, prepared) if not w.skip]
        if not weights:
            raise ImportanceError(f"{model.path} has no weights to compress.")
        for weight in weights:
            weight.array()  # raises if an entry is not finite, which no gradient could tell
        probe = next(iter(data.batches(1)))
        every = Gradients(prepared, base, sources, [w.name for w in weights], runtime=runtime)
        self.blocked = every.blocked(probe.feeds)
        self.reachable = tuple(w.name for w in weights if w.name not in self.blocked)
        self._shapes = {w.name: w.shape for w in weights}
        self._data, self._passes_of = data, passes_of
        self._batched, self.path = False, "no weight has a derivative"
        if not self.reachable:
            return
        self._gradients = Gradients(prepared, base, sources, self.reachable, runtime=runtime)
        self._size, why = self._choose_path(model, every.trace(probe.feeds), batched)
        every.release()
        self._batched = not why
        self.path = f"one sample at a time: {why}" if why else "batched"

    def mean(self, track: Track, what: str = "importance") -> dict[str, Array]:
        """E_n Σ over passes of factor · (per-sample gradient)², for every weight.

        Raises:
            ImportanceError: no weight has a derivative, or a gradient is not finite.
        """
        if not self.reachable:
            raise ImportanceError(
                f"no weight has a derivative: {next(iter(self.blocked.values()))}. "
                "Identity importance needs none."
            )
        mode: Mode = "squares" if self._batched else "squared gradient"
        rows = self._data.sample_axis
        squares = batched_squares if self._batched or not rows else reference_squares
        totals: dict[str, Array] = {}
        done = 0
        for batch in track(self._batches(), what, -(-self._data.samples // self._size)):
            forward = self._gradients.forward(mode, batch.feeds)
            for one in self._passes_of(forward.sources, batch, done):
                seeds = one.seeds
                if rows:
                    seeds = {name: _masked(seed, batch.size) for name, seed in seeds.items()}
                _add(totals, squares(self._gradients, forward, seeds), one.factor)
            done += batch.size
        return self._finished(totals)

    def _finished(self, totals: Mapping[str, Array]) -> dict[str, Array]:
        """Means over the samples; a weight without a derivative gets the mean of all others."""
        values = {name: total / np.float32(self._data.samples) for name, total in totals.items()}
        _check_finite(values)
        entries = sum(value.size for value in values.values())
        mean = sum(float(value.sum(dtype=np.float64)) for value in values.values()) / entries
        return values | {
            name: np.full(self._shapes[name], mean, np.float32) for name in self.blocked
        }

    def _batches(self) -> Iterator[Batch]:
        """All samples, filled up to batches of one size, so that no other shapes come up."""
        for batch in self._data.batches(self._size):
            yield _padded(batch, self._size) if self._batched else batch

    def _choose_path(self, model: Model, trace: Trace, batched: bool) -> tuple[int, str]:
        """(batch size, why not batched): the batched path is used only if it agrees."""
        fixed = {spec.shape[0] for spec in model.inputs if spec.shape}
        if not self._data.sample_axis:
            return 1, "the data have no sample axis"
        if not batched:
            return 1, "asked for"
        if 1 in fixed:
            return 1, "the model takes one sample at a time"
        pair = next(iter(self._data.batches(2)))
        if pair.size < 2:
            return 1, "a single sample"
        try:
            why = self._check(pair)
        except ModelError as error:
            why = f"the model does not run on batches ({str(error)[:100]})"
        log.info("batched path: %s", why or "agrees with one sample at a time")
        if why:
            return 1, why
        largest = min(_batch_size(trace), self._data.samples)
        return next((n for n in fixed if isinstance(n, int)), largest), ""

    def _check(self, pair: Batch) -> str:
        forward = self._gradients.forward("squared gradient", pair.feeds)
        first = next(iter(self._passes_of(forward.sources, pair, 0)))
        return why_not_batched(
            self._gradients,
            pair.feeds,
            {name: _masked(seed, pair.size) for name, seed in first.seeds.items()},
        )


def _add(totals: dict[str, Array], squares: Mapping[str, Array], factor: float) -> None:
    for name, square in squares.items():
        scaled = square * np.float32(factor)
        totals[name] = totals[name] + scaled if name in totals else scaled


def _masked(seed: Array, real: int) -> Array:
    """Cotangents that are zero for the samples that only fill the batch."""
    return seed if len(seed) == real else np.concatenate([seed[:real], 0 * seed[real:]])


def _padded(batch: Batch, size: int) -> Batch:
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


def _batch_size(trace: Trace) -> int:
    """Samples whose activations, windows and gradients fit in the memory set aside."""
    activations = [int(np.prod(s)) for v, s in trace.shapes.items() if not v.is_initializer()]
    weights = [int(np.prod(s)) for v, s in trace.shapes.items() if v.is_initializer()]
    nbytes = 4 * (3 * sum(activations) + 16 * max(activations) + 2 * max(weights, default=0))
    return int(np.clip(MEMORY // nbytes, 1, LARGEST_BATCH))


def _check_finite(values: Mapping[str, Array]) -> None:
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ImportanceError(
                f"the gradient of weight {name!r} is not finite. "
                "Do the data have the scale that the model was trained with?"
            )
