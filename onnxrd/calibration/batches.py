"""Data, row by row or call by call → batches, checked as they are read."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxrd.calibration.checks import (
    LABELS,
    Array,
    Labels,
    as_labels,
    check_feeds,
    check_finite,
    shared_fixed_batch,
    shared_length,
)
from onnxrd.calibration.sources import Calls, Table
from onnxrd.errors import CalibrationError
from onnxrd.graph.specs import InputSpec

Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one run of the model is fed.

    Attributes:
        feeds:  [B, *input] by name, or [*input] where there is no sample axis. B exceeds `size`
            where the model prescribes B and the last samples do not fill it: then the last one is
            repeated.
        labels: [size, ...], none for repeated samples; without a sample axis all that go with the
            call; None if there are none.
        size:   number of real samples; 1 for a call without a sample axis.
    """

    feeds: dict[str, Array]
    labels: Labels | None
    size: int


class Rows:
    """Data whose samples are rows of arrays, numbered 0 ≤ number < count."""

    sample_axis = True

    def __init__(self, table: Table, inputs: Sequence[InputSpec]) -> None:
        self._where, arrays = table.where, dict(table.arrays)
        self._fixed = shared_fixed_batch(table.where, inputs)
        check_feeds(table.where, arrays, inputs, sample_axis=True)
        self.count = shared_length(table.where, arrays)
        self._labels = _pop_labels(table.where, arrays, inputs)
        self._arrays = arrays

    def batches(self, chosen: Numbers, size: int) -> Iterator[Batch]:
        """The chosen rows, so many at a time."""
        size = self._fixed or size
        for start in range(0, len(chosen), size):
            real = rows = chosen[start : start + size]
            if self._fixed:
                rows = np.pad(real, (0, size - len(real)), mode="edge")
            feeds = {name: _plain(array[rows]) for name, array in self._arrays.items()}
            check_finite(self._where, feeds, rows.tolist())
            yield Batch(feeds, self.labels(real), len(real))

    def labels(self, chosen: Numbers) -> Labels | None:
        """[chosen, ...], if there are any."""
        return None if self._labels is None else self._labels[chosen]


class OneByOne:
    """Rows as calls with one sample each."""

    sample_axis = False

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.count = rows.count

    def batches(self, chosen: Numbers, size: int) -> Iterator[Batch]:
        """The chosen rows, one at a time whatever the size."""
        return self._rows.batches(chosen, 1)

    def labels(self, chosen: Numbers) -> Labels | None:
        """Those of the chosen rows, one after the other."""
        return self._rows.labels(chosen)


class CallByCall:
    """Data whose samples are calls, numbered 0 ≤ number < count.

    Attributes:
        rows: of the first call, which may be samples; 1 if they cannot be.
    """

    sample_axis = False

    def __init__(self, calls: Calls, inputs: Sequence[InputSpec]) -> None:
        self._calls, self._inputs = calls, inputs
        self.count = self.rows = 0
        for self.count, (where, read) in enumerate(calls.entries(), 1):
            if self.count == 1:
                first = self._batch(where, read())
                self._labelled = first.labels is not None
                self.rows = self._rows(first)
        if not self.count:
            raise CalibrationError(f"{calls.where}: no calls. At least one is needed.")

    def batches(self, chosen: Numbers, size: int) -> Iterator[Batch]:
        """The chosen calls (in ascending order), one at a time whatever the size."""
        wanted = set(chosen.tolist())
        entries = (entry for n, entry in enumerate(self._calls.entries()) if n in wanted)
        missing = len(wanted)
        for where, read in itertools.islice(entries, missing):
            missing -= 1
            batch = self._batch(where, read())
            if (batch.labels is not None) != self._labelled:
                raise CalibrationError(
                    f"{where}: some calls have {LABELS!r} and some have not. Give all or none."
                )
            yield batch
        if missing:
            raise CalibrationError(
                f"{self._calls.where}: fewer calls than when it was opened; it must give the same "
                "ones each time."
            )

    def labels(self, chosen: Numbers) -> Labels | None:
        """Those of the chosen calls, one after the other; reads all of these calls."""
        if not self._labelled:
            return None
        labels = [batch.labels for batch in self.batches(chosen, 1) if batch.labels is not None]
        if len({part.shape[1:] for part in labels}) > 1:
            raise CalibrationError(
                f"{self._calls.where}: {LABELS!r} differ in shape beyond their first axis."
            )
        return np.concatenate(labels)

    def _rows(self, call: Batch) -> int:
        """What the arrays of a call have along a first axis of any length, if it is the same."""
        lengths = {array.shape[:1] for array in call.feeds.values()}
        free = all(spec.shape and not isinstance(spec.shape[0], int) for spec in self._inputs)
        return next(iter(lengths))[0] if free and len(lengths) == 1 else 1

    def _batch(self, where: str, arrays: dict[str, Array]) -> Batch:
        check_feeds(where, arrays, self._inputs, sample_axis=False)
        labels = _pop_labels(where, arrays, self._inputs)
        feeds = {name: _plain(array) for name, array in arrays.items()}
        check_finite(where, feeds, [])
        return Batch(feeds, None if labels is None else np.atleast_1d(labels), 1)


Data = Rows | OneByOne | CallByCall


def _pop_labels(where: str, arrays: dict[str, Array], inputs: Sequence[InputSpec]) -> Labels | None:
    if LABELS not in arrays or any(spec.name == LABELS for spec in inputs):
        return None
    return as_labels(where, arrays.pop(LABELS))


def _plain(array: Array) -> Array:
    """The array as onnxruntime needs it: aligned, which mapped ones seldom are, and C order."""
    return np.require(array, requirements=["C", "A", "E"])
