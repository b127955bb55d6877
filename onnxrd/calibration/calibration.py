"""Calibration data as batches that fit the model."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from onnxrd.calibration.batches import Batch, CallByCall, Data, Numbers, OneByOne, Rows
from onnxrd.calibration.checks import (
    LABELS,
    Labels,
)
from onnxrd.calibration.sources import Table, open_source
from onnxrd.errors import CalibrationError, SettingError
from onnxrd.graph.specs import InputSpec

_DIGEST_BATCH = 64


@dataclass(frozen=True, eq=False)
class Calibration:
    """Samples for the calibration or evaluation of a model; made by `load`.

    Attributes:
        chosen: [samples], ascending: which ones of the source take part.
    """

    chosen: Numbers
    _data: Data

    @property
    def samples(self) -> int:
        """How many samples there are; without a sample axis each call is one."""
        return len(self.chosen)

    @property
    def sample_axis(self) -> bool:
        """Whether the first axis of every feed counts samples (else it means what it likes)."""
        return self._data.sample_axis

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user might have meant otherwise."""
        rows = self._data.rows if isinstance(self._data, CallByCall) else 1
        if rows <= 1:
            return ()
        return (
            f"each call counts as one sample, though the first one has {rows} rows: where rows are "
            "samples, give them all in one .npz (np.concatenate), or a mapping of arrays.",
        )

    @cached_property
    def labels(self) -> Labels | None:
        """[samples, ...]; without a sample axis those of all calls, one after the other."""
        return self._data.labels(self.chosen)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the samples with their labels, in hexadecimal; reads them all."""
        total = hashlib.sha256(str(self.sample_axis).encode())
        for batch in self._data.batches(self.chosen, _DIGEST_BATCH):
            arrays = batch.feeds if batch.labels is None else {**batch.feeds, LABELS: batch.labels}
            for name, array in sorted(arrays.items()):
                total.update(f"{name} {array.dtype} {array.shape} {batch.size}".encode())
                total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()

    def batches(self, size: int) -> Iterator[Batch]:
        """Start a pass over all samples, always in the same order.

        Args:
            size: samples in a batch (the last one may have fewer). Without a sample axis every
                call is a batch; a batch size that the model prescribes has precedence.

        Raises:
            SettingError: size < 1.
            CalibrationError: while reading: NaN or infinity, or a call does not fit the model.
        """
        if size < 1:
            raise SettingError(f"batches of {size} samples? Give 1 or more.")
        return self._data.batches(self.chosen, size)

    def subset(self, indices: Sequence[int] | Numbers) -> "Calibration":
        """Some of the samples, each once, in their order here; nothing is copied.

        Raises:
            SettingError: no indices, or one is not in 0 … samples-1.
        """
        wanted = np.unique(np.asarray(indices, dtype=np.int64))
        if not wanted.size or wanted[0] < 0 or wanted[-1] >= self.samples:
            raise SettingError(f"a subset needs indices, all from 0 to {self.samples - 1}.")
        return replace(self, chosen=self.chosen[wanted])

    def spread(self, count: int) -> "Calibration":
        """So many of the samples, spread evenly; all if there are not more."""
        few = min(count, self.samples)
        return self.subset(np.arange(few) * self.samples // few)

    def one_by_one(self) -> "Calibration":
        """The same samples without a sample axis: as calls of one each."""
        return replace(self, _data=OneByOne(self._data)) if isinstance(self._data, Rows) else self

    def split(self, fraction: float, seed: int = 0) -> tuple["Calibration", "Calibration"]:
        """Hold out a random part: (the rest, the held-out part), both without copies.

        Args:
            fraction: share of the samples that is held out, 0 < fraction < 1; rounded so that
                both parts have one sample at least.
            seed: of the choice.

        Raises:
            SettingError: fraction out of range.
            CalibrationError: fewer than two samples.
        """
        if not 0 < fraction < 1:
            raise SettingError(f"cannot hold out a share of {fraction}. Give one between 0 and 1.")
        if self.samples < 2:
            hint = "".join(f" Or: {warning}" for warning in self.warnings)
            raise CalibrationError(f"one sample cannot be split. Give more data.{hint}")
        count = min(max(round(fraction * self.samples), 1), self.samples - 1)
        held_out = _draw(self.samples, count, seed)
        return self.subset(np.delete(np.arange(self.samples), held_out)), self.subset(held_out)

    def check_labels(self, classes: int) -> None:
        """Check that the labels, if there are any, are below the number of classes.

        Raises:
            CalibrationError: names the first label that is too high.
        """
        if self.labels is None or not (high := self.labels >= classes).any():
            return
        place = tuple(np.argwhere(high)[0])
        number = self.chosen[place[0]] if self.sample_axis else place[0]
        hint = " Do they count from 1? Then subtract 1." if self.labels.min() == 1 else ""
        raise CalibrationError(
            f"label {self.labels[place]} (number {number} of {LABELS!r}) is not below the model's "
            f"{classes} classes; labels count from 0.{hint}"
        )


def load(
    source: Any, inputs: Sequence[InputSpec], *, samples: int | None = None, seed: int = 0
) -> Calibration:
    """Open calibration data and check that they fit the model; little is read yet.

    Sources in which all arrays share a first axis, the samples, by the names of the inputs and,
    optionally, integer `labels`:

    - path of an `.npz`, which is mapped into memory unless compressed; or a mapping of arrays.

    Sources of one call each, every array just as the model takes it:

    - a folder of `.npz` files, taken in the order of their names.
    - a folder with `test_data_set_*` folders, or one of these: `input_K.pb` is the K-th input.
    - an iterable of dicts, or an onnxruntime `CalibrationDataReader`. What can be read only once (a
      generator, a reader without `rewind()`) is copied, 1 GiB at most.

    `script.py:function` calls a function without arguments and takes what it returns.

    Args:
        source: one of the above.
        inputs: what the model wants to be fed.
        samples: take so many, at random; all if there are not more, or if None.
        seed: of the choice.

    Raises:
        CalibrationError: the data cannot be read or do not fit the model; says how to mend it.
        SettingError: samples < 1.
    """
    if samples is not None and samples < 1:
        raise SettingError(f"{samples} samples are too few. Give 1 or more.")
    opened = open_source(source, [spec.name for spec in inputs])
    data = Rows(opened, inputs) if isinstance(opened, Table) else CallByCall(opened, inputs)
    count = data.count if samples is None else min(samples, data.count)
    return Calibration(_draw(data.count, count, seed), data)


def _draw(total: int, count: int, seed: int) -> Numbers:
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])
