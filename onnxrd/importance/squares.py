"""Squared per-sample gradients over data: what every diagonal importance is made of."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxrd.autodiff.engine import Mode
from onnxrd.autodiff.gradients import (
    Forward,
    Gradients,
    batched_squares,
    only,
    reference_squares,
    why_not_batched,
)
from onnxrd.autodiff.trace import Trace
from onnxrd.calibration import Batch, Calibration
from onnxrd.errors import ImportanceError, ModelError
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime
from onnxrd.graph.weights import find_weights
from onnxrd.importance.batching import batch_size, masked, padded, repeated
from onnxrd.progress import Track

Array = NDArray[np.float32]
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pass:
    """One reverse pass over a batch.

    Attributes:
        seeds: [N, …] cotangents, by name of the value that they start at.
        factor: what the squared gradients are multiplied with.
        draw: which independent estimate the pass is a part of.
    """

    seeds: Mapping[str, Array]
    factor: float
    draw: int = 0


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
        self._gradients.release()
        self._batched = not why
        self._fixed = next((n for spec in model.inputs if (n := spec.fixed_batch)), None)
        self.path = f"one sample at a time: {why}" if why else "batched"

    def mean(self, track: Track, what: str = "importance") -> dict[str, Array]:
        """E_n Σ over passes of factor · (per-sample gradient)², for every weight.

        Raises:
            ImportanceError: no weight has a derivative, or a gradient is not finite.
        """
        rows = self._data.sample_axis
        squares = batched_squares if self._batched or not rows else reference_squares
        totals: dict[str, Array] = {}
        for batch, forward, passes in self._runs(track, what):
            for one in passes:
                seeds = one.seeds
                if rows:
                    seeds = {name: masked(seed, batch.size) for name, seed in seeds.items()}
                _add(totals, squares(self._gradients, forward, seeds), one.factor)
            del forward, passes  # the next needs their memory
        return self._finished(totals)

    def mean_of_squares(self, track: Track, what: str = "importance") -> dict[str, Array]:
        """E_n [(Σ over passes of factor · (per-sample gradient)²)²], for every weight.

        The square of a random estimate is too large by its variance; the product of two has no
        bias: of even draws and odd ones, where there are several.

        Raises:
            ImportanceError: no weight has a derivative, or a gradient is not finite.
        """
        totals: dict[str, Array] = {}
        for batch, forward, passes in self._runs(track, what):
            halves = _halves(list(passes))
            for n in range(batch.size):
                found = self._of_sample(batch, n, forward, halves)
                _add(totals, {name: found[0][name] * found[-1][name] for name in found[0]}, 1.0)
        return self._finished(totals)

    def _runs(self, track: Track, what: str) -> Iterator[tuple[Batch, Forward, Iterable[Pass]]]:
        """Every batch, filled up so that no other shapes come up, with what goes backwards."""
        if not self.reachable:
            raise ImportanceError(
                f"no weight has a derivative: {next(iter(self.blocked.values()))}. "
                "Identity importance needs none."
            )
        done = 0
        for batch in track(
            self._data.batches(self._size), what, -(-self._data.samples // self._size)
        ):
            full = padded(batch, self._size) if self._batched else batch
            forward = self._gradients.forward(self._mode, full.feeds)
            yield full, forward, self._passes_of(forward.sources, full, done)
            del forward
            done += batch.size

    @property
    def _mode(self) -> Mode:
        return "squares" if self._batched else "squared gradient"

    def _of_sample(
        self, batch: Batch, n: int, forward: Forward, groups: Sequence[Sequence[Pass]]
    ) -> list[dict[str, Array]]:
        """For each group Σ over its passes of factor · (gradient of sample n)²."""
        if not self._batched:
            rows = self._data.sample_axis
            return [self._one_at_a_time(forward, n if rows else None, group) for group in groups]
        size = self._fixed or min(self._size, max(len(group) for group in groups))
        forward = self._gradients.forward("squares", repeated(batch, n, size))
        return [self._all_at_once(forward, n, group, size) for group in groups]

    def _one_at_a_time(
        self, forward: Forward, n: int | None, passes: Sequence[Pass]
    ) -> dict[str, Array]:
        totals: dict[str, Array] = {}
        for one in passes:
            seeds = one.seeds
            if n is not None:
                seeds = {name: only(seed, n) for name, seed in seeds.items()}
            _add(totals, self._gradients.backward(forward, seeds), one.factor)
        return totals

    def _all_at_once(
        self, forward: Forward, n: int, passes: Sequence[Pass], size: int
    ) -> dict[str, Array]:
        """A batch that is one sample again and again, each time with the seeds of another pass."""
        totals: dict[str, Array] = {}
        for sign in (1.0, -1.0):
            chosen = [one for one in passes if sign * one.factor > 0]
            for start in range(0, len(chosen), size):
                seeds = _rows(chosen[start : start + size], n, size)
                _add(totals, batched_squares(self._gradients, forward, seeds), sign)
        return totals

    def _finished(self, totals: Mapping[str, Array]) -> dict[str, Array]:
        """Means over the samples; a weight without a derivative gets the mean of all others."""
        values = {name: total / np.float32(self._data.samples) for name, total in totals.items()}
        _check_finite(values)
        entries = sum(value.size for value in values.values())
        mean = sum(float(value.sum(dtype=np.float64)) for value in values.values()) / entries
        return values | {
            name: np.full(self._shapes[name], mean, np.float32) for name in self.blocked
        }

    def _choose_path(self, model: Model, trace: Trace, batched: bool) -> tuple[int, str]:
        """(batch size, why not batched): the batched path is used only if it agrees."""
        fixed = {n for spec in model.inputs if (n := spec.fixed_batch)}
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
        return next(iter(fixed), min(batch_size(trace), self._data.samples)), ""

    def _check(self, pair: Batch) -> str:
        sources = self._gradients.forward("squared gradient", pair.feeds).sources
        first = next(iter(self._passes_of(sources, pair, 0)))
        return why_not_batched(
            self._gradients,
            pair.feeds,
            {name: masked(seed, pair.size) for name, seed in first.seeds.items()},
        )


def _add(totals: dict[str, Array], squares: dict[str, Array], factor: float) -> None:
    """Add squares to totals, and drop each as soon as that is done."""
    for name in list(squares):
        square = squares.pop(name)
        scaled = square if factor == 1.0 else square * np.float32(factor)
        if name in totals:
            totals[name] += scaled
        else:
            totals[name] = np.require(scaled, requirements="W")


def _halves(passes: Sequence[Pass]) -> list[list[Pass]]:
    """Passes of even and odd draws, each half made to stand for all; one list for a single draw."""
    draws = len({one.draw for one in passes})
    if draws == 1:
        return [list(passes)]
    halves = [[one for one in passes if one.draw % 2 == odd] for odd in (0, 1)]
    counts = (draws - draws // 2, draws // 2)
    return [
        [replace(one, factor=one.factor * draws / count) for one in half]
        for half, count in zip(halves, counts)
    ]


def _rows(passes: Sequence[Pass], n: int, size: int) -> dict[str, Array]:
    """[size, …] cotangents of one sample, a row for each pass, scaled; the last rows are zero."""
    rows = {}
    for name, first in passes[0].seeds.items():
        rows[name] = np.zeros((size, *first.shape[1:]))
        for k, one in enumerate(passes):
            rows[name][k] = one.seeds[name][n] * abs(one.factor) ** 0.5
    return rows


def _check_finite(values: Mapping[str, Array]) -> None:
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ImportanceError(
                f"the gradient of weight {name!r} is not finite. "
                "Do the data have the scale that the model was trained with?"
            )
