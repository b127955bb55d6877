"""Do arrays fit the model? Every error names the array and says how to mend it."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.errors import CalibrationError
from onnxrd.graph.specs import InputSpec, format_shape

Array = NDArray[Any]
Labels = NDArray[np.int64]

LABELS = "labels"
"""Name of the array of labels, unless the model has an input of that name."""

_ONE_CALL_EACH = "For inputs without a sample axis give a folder of .npz files, one call each."


def check_feeds(
    where: str, arrays: Mapping[str, Array], inputs: Sequence[InputSpec], *, sample_axis: bool
) -> None:
    """Check names, dtypes and shapes, without reading any data.

    Args:
        where: what the arrays come from, for the messages.
        arrays: by name, with or without `labels`.
        inputs: what the model wants.
        sample_axis: the first axis counts samples, whatever length the model gives it.

    Raises:
        CalibrationError: something does not fit.
    """
    _check_names(where, arrays, inputs)
    for spec in inputs:
        _check_dtype(where, spec, arrays[spec.name].dtype)
        _check_shape(where, spec, arrays[spec.name].shape, sample_axis)


def check_finite(where: str, feeds: Mapping[str, Array], samples: Sequence[int]) -> None:
    """Check that no floating-point array holds NaN or infinity.

    Args:
        where: what the arrays come from, for the message.
        feeds: by name; [B, *input] if samples are given.
        samples: [B], numbers of the samples, for the message; empty if there is no sample axis.

    Raises:
        CalibrationError: names the first array and place that are not finite.
    """
    for name, array in feeds.items():
        if array.dtype.kind not in "fcV" or (finite := np.isfinite(array)).all():
            continue
        place = np.argwhere(~finite)[0].tolist()
        if samples:
            place[0] = samples[place[0]]
        raise CalibrationError(
            f"{where}: {name!r} holds NaN or infinity, first at {place}. Remove such samples, "
            "or mend what produces them."
        )


def as_labels(where: str, labels: Array) -> Labels:
    """Labels as int64, checked.

    Raises:
        CalibrationError: not integers, or one is negative.
    """
    if labels.dtype.kind not in "iu":
        raise CalibrationError(
            f"{where}: {LABELS!r} has dtype {labels.dtype.name}; labels are numbers of classes. "
            f"Store them as integers, with .astype(np.int64)."
        )
    widened = labels.astype(np.int64)
    if widened.size and widened.min() < 0:
        raise CalibrationError(
            f"{where}: {LABELS!r} holds {widened.min()}; labels count from 0. Leave samples "
            "without a label out."
        )
    return widened


def shared_length(where: str, arrays: Mapping[str, Array]) -> int:
    """The number of samples, which is the length of every array's first axis.

    Raises:
        CalibrationError: no samples, an array without axes, or arrays of different lengths.
    """
    for name, array in arrays.items():
        if array.ndim == 0:
            raise CalibrationError(
                f"{where}: {name!r} is a scalar, without a sample axis. {_ONE_CALL_EACH}"
            )
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise CalibrationError(
            f"{where}: arrays differ in their number of samples: {listed}. The first axis of "
            f"every array counts the samples. {_ONE_CALL_EACH}"
        )
    if not any(lengths.values()):
        raise CalibrationError(f"{where}: no samples. At least one is needed.")
    return next(iter(lengths.values()))


def shared_fixed_batch(where: str, inputs: Sequence[InputSpec]) -> int | None:
    """The batch size that the model prescribes, None if any will do.

    Raises:
        CalibrationError: inputs prescribe different ones, or one is a scalar, so that no axis can
            count samples.
    """
    for spec in inputs:
        if spec.shape == ():
            raise CalibrationError(
                f"{where}: the model's input {spec.name!r} is a scalar, without a sample axis. "
                f"{_ONE_CALL_EACH}"
            )
    fixed = {spec: spec.fixed_batch for spec in inputs if spec.fixed_batch is not None}
    if len(set(fixed.values())) > 1:
        raise CalibrationError(
            f"{where}: the model's inputs disagree on the first axis: "
            f"{', '.join(map(str, fixed))}; so it cannot count samples. {_ONE_CALL_EACH}"
        )
    return next(iter(fixed.values()), None)


def _check_names(where: str, names: Mapping[str, Array], inputs: Sequence[InputSpec]) -> None:
    wanted = [spec.name for spec in inputs]
    missing = [name for name in wanted if name not in names]
    extra = [name for name in names if name not in wanted and name != LABELS]
    if not missing and not extra:
        return
    problems = [f"no array {name!r}" for name in missing]
    problems += [f"{name!r} is no input of the model" for name in extra]
    free = [name for name in (*missing, LABELS) if name not in names]
    hints = ""
    for name in extra:
        only = missing if len(missing) == len(extra) == 1 else []
        close = difflib.get_close_matches(name, free, 1) or only
        hints += f" Rename {name!r} to {close[0]!r}." if close else f" Leave {name!r} out."
    raise CalibrationError(
        f"{where}: {', '.join(problems)}. The model wants {', '.join(map(str, inputs))}.{hints}"
    )


def _check_dtype(where: str, spec: InputSpec, dtype: np.dtype[Any]) -> None:
    if dtype == spec.dtype or (spec.dtype.kind == "O" and dtype.kind == "U"):
        return
    module = "ml_dtypes" if spec.dtype.kind == "V" else "np"
    raise CalibrationError(
        f"{where}: {spec.name!r} has dtype {dtype.name}, the model wants {spec.dtype.name}. "
        f"Nothing is converted silently: cast with .astype({module}.{spec.dtype.name}), and scale "
        "if the model expects it."
    )


def _check_shape(where: str, spec: InputSpec, shape: tuple[int, ...], sample_axis: bool) -> None:
    if spec.shape is None:
        return
    wanted = ("samples", *spec.shape[1:]) if sample_axis else spec.shape
    message = (
        f"{where}: {spec.name!r} has shape {format_shape(shape)}, "
        f"the model wants {format_shape(wanted)}."
    )
    if len(shape) < len(wanted):
        raise CalibrationError(f"{message} An axis is missing: add it with np.expand_dims.")
    if len(shape) > len(wanted):
        raise CalibrationError(f"{message} There are too many axes: drop some with .reshape.")
    for axis, (has, wants) in enumerate(zip(shape, wanted)):
        if isinstance(wants, int) and has != wants:
            raise CalibrationError(f"{message} Axis {axis} must have length {wants}, not {has}.")
