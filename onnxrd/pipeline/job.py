"""A model to compress, and what guides it: settings, data, importance."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd import encodings
from onnxrd.calibration import Calibration
from onnxrd.calibration import load as load_data
from onnxrd.distortion import TAKEN_FOR_LOGITS, find_heads
from onnxrd.errors import ModelError, SettingError
from onnxrd.graph.lean import lean
from onnxrd.graph.model import Model, PathLike
from onnxrd.graph.weights import QUANTIZED, Weight, names_of_weights
from onnxrd.importance import Importance, identity, load_importance
from onnxrd.measurement import EIGHT_LEVELS, Quantizer, measure_importance
from onnxrd.options import Options

Array = NDArray[Any]

EXCLUDED = "excluded"
"""Why a constant stays as it is: the user said so."""


@dataclass(frozen=True, eq=False)
class Job:
    """A model to compress, with what guides it."""

    model: Model
    data: Calibration | None
    importance: Importance
    options: Options
    warnings: tuple[str, ...]

    def holding(
        self, weights: Iterable[str], constants: Mapping[str, Array] | None = None
    ) -> "Shell":
        """A copy of the model to put encoded weights into, lean unless names are to be kept.

        Args:
            weights: names of those that it must hold itself, not its functions.
            constants: other values for constants, by name.
        """
        model = self.model.holding(list(weights))
        replace_constants(model, constants or {})
        if not self.options.keep_names:
            return Shell(model, lean(model, names_of_weights(self.model)))
        return Shell(model, {name: name for name in model.graph.initializers})


@dataclass(frozen=True, eq=False)
class Shell:
    """What is left of a model but for its weights.

    Attributes:
        model: it still holds them, and may be edited.
        names: what the constants of its main graph are called, by their names in the original.
    """

    model: ir.Model
    names: Mapping[str, str]


def replace_constants(model: ir.Model, constants: Mapping[str, Array]) -> None:
    """Give constants of a model other values, wherever they are held."""
    held = encodings.Constants(model)
    for name, array in constants.items():
        value, tensor = held[name], ir.tensor(array)
        node = value.producer()
        if node is None:
            value.const_value = tensor
        else:
            node.attributes["value"] = ir.AttrTensor("value", tensor)
            node.attributes.pop("value_floats", None)


def files_of(*inputs: Any) -> tuple[Path, ...]:
    """Those inputs that are paths."""
    return tuple(Path(given) for given in inputs if isinstance(given, (str, os.PathLike)))


def choose(
    model: Model, found: Sequence[Weight], exclude: str | Sequence[str]
) -> tuple[list[Weight], dict[str, str]]:
    """Weights to compress, and the others that stand for real numbers with their reasons.

    Raises:
        SettingError: a pattern matches nothing.
        ModelError: nothing is left to compress.
    """
    excluded: set[str] = set()
    for pattern in [exclude] if isinstance(exclude, str) else exclude:
        matching = {w.name for w in found if w.name == pattern or fnmatchcase(w.name, pattern)}
        excluded |= matching
        if not matching:
            raise SettingError(
                f"{pattern!r}, to be excluded, matches no weight. `onnxrd inspect` lists their "
                "names."
            )
    chosen = [w for w in found if not w.skip and w.name not in excluded]
    others = {
        w.name: EXCLUDED if w.name in excluded else w.skip
        for w in found
        if w.name in excluded or (w.skip and (w.floating or w.skip.startswith(QUANTIZED)))
    }
    if not chosen:
        but = " besides those excluded" if exclude else ""
        quantized = any(reason.startswith(QUANTIZED) for reason in others.values())
        why = "its weights are quantized already" if quantized else "see `onnxrd inspect`"
        raise ModelError(f"{model.path} has no weights to compress{but}: {why}.")
    return chosen, others


def prepare(
    model: Model,
    data: Any,
    importance: PathLike | Importance | None,
    options: Options,
    quantizer: Quantizer = EIGHT_LEVELS,
) -> Job:
    """Importance from a file, from the data, or none, with what has to be said about it."""
    samples = None
    if data is not None:
        samples = (
            data
            if isinstance(data, Calibration)
            else load_data(data, model.inputs, samples=options.samples, seed=options.seed)
        )
    warnings = [] if samples is None else [*samples.warnings, *_guessed(model, samples, options)]
    if importance is not None:
        h = _measured_before(model, importance, options)
        if samples is None:
            warnings.append(
                "no calibration data: the damage is predicted, but NOT measured. Give --data."
            )
    elif samples is not None:
        h = measure_importance(model, samples, options, quantizer)
    else:
        h = identity(model)
        warnings.append(
            "no calibration data: all weights are taken to be alike (plain magnitude), and the "
            "damage is NOT measured. Give --data."
        )
    if model.opset < encodings.ENTROPY_OPSET:
        warnings.append(
            f"the model is of opset {model.opset}: below {encodings.ENTROPY_OPSET} weights cannot "
            "be entropy-coded, and files are up to three times as large. Convert it first, by "
            "onnx.version_converter.convert_version(model, 17), say."
        )
    if h.fallbacks:
        warnings.append(
            f"{len(h.fallbacks)} weights have no derivative, finite differences stand in for it, "
            f"coarsely: {'; '.join(sorted(set(h.fallbacks.values())))}."
        )
    if h.gauss_newton:
        warnings.append(
            f"{len(h.gauss_newton)} weights have Gauss–Newton's approximation for their second "
            f"derivatives, because of {', '.join(sorted(set(h.gauss_newton.values())))}."
        )
    if h.proxies:
        warnings.append(
            f"{len(h.proxies)} weights have no measured importance, the mean of the others stands "
            f"in for it: {'; '.join(sorted(set(h.proxies.values())))}."
        )
    return Job(model, samples, h, options, tuple(warnings))


def _guessed(model: Model, samples: Calibration, options: Options) -> Iterator[str]:
    """That outputs are taken for logits, where no labels say so."""
    if samples.labels is not None:
        return
    heads = find_heads(model.prepared(), options.task)
    if outputs := [head.output for head in heads if head.why == TAKEN_FOR_LOGITS]:
        yield (
            f"{', '.join(outputs)}: {TAKEN_FOR_LOGITS} of classes. If these are numbers, as of an "
            "embedding, say --task regression (and if not, --task classification ends this)."
        )


def _measured_before(
    model: Model, importance: PathLike | Importance, options: Options
) -> Importance:
    if not isinstance(importance, Importance):
        importance = load_importance(importance, model)
    importance.check_model(model)
    if options.damping is not None:
        importance = replace(importance, damping=options.damping)
    return importance
