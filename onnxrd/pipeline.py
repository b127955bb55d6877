"""Where the rooms meet: a model and data in, a smaller verified model out.

::

    model.onnx ──load──► Model ──find_weights──► weights
    data ──► Calibration ──fisher──► Importance ┐
    weights ────────────────────────────────────┴─quantizers─► Quantized ──encodings──► fragments
    Model + fragments ──write──► file ──verify, evaluate──► Result
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from onnxrd import encodings, quantizers
from onnxrd.calibration import Calibration
from onnxrd.calibration import load as load_data
from onnxrd.distortion import regression
from onnxrd.errors import CalibrationError, ModelError, SettingError, TargetError
from onnxrd.evaluation import count_parameters, evaluate, example_feeds, verify
from onnxrd.graph.model import Model, atomic_output, load, save, scratch
from onnxrd.graph.weights import QUANTIZED, Weight, find_weights
from onnxrd.importance import Importance, fisher, identity, load_importance, supervised
from onnxrd.options import Options
from onnxrd.quantizers import Codebook, Quantized
from onnxrd.report.result import Layer, Result

LARGE = 1 << 26
"""Bytes of weights above which a model is not put together in memory to be verified."""

PathLike = str | os.PathLike[str]
Quantizer = Callable[[Sequence[Weight], Importance], Iterator[Quantized]]
"""Weights and what errors in them cost → one approximation of each, in the same order."""


def quantize(
    model: PathLike,
    output: PathLike,
    *,
    clusters: int = 16,
    keep: float = 1.0,
    data: Any = None,
    importance: PathLike | Importance | None = None,
    options: Options | None = None,
) -> Result:
    """Replace every weight's values by a few levels, found by importance-weighted k-means.

    Args:
        model: path of the original.
        output: path to write; never the original.
        clusters: levels of each weight's codebook.
        keep: share of each weight's entries that may be other than zero; below 1 the rest is
            pruned and one level is zero.
        data: calibration data in any form that `onnxrd.calibration.load` takes.
        importance: measured before, instead of by way of the data; a path or a value.
        options: see there.

    Raises:
        OnnxrdError: see `onnxrd.errors`; nothing has been written then.
    """
    if clusters < 2:
        raise SettingError(f"{clusters} clusters cannot hold a weight. Take 2 or more.")
    _check_share(keep)

    def quantizer(weights: Sequence[Weight], h: Importance) -> Iterator[Quantized]:
        for weight in weights:
            array, cost = weight.array(), h.damped(weight.name, weight.shape)
            quartic = h.damped_quartic(weight.name) if h.quartic else None
            yield quantizers.prune_and_quantize(array, cost, keep, clusters, quartic)

    return _compress(model, output, quantizer, data, importance, options or Options())


def prune(
    model: PathLike,
    output: PathLike,
    *,
    keep: float,
    scope: Literal["layer", "global"] = "layer",
    data: Any = None,
    importance: PathLike | Importance | None = None,
    options: Options | None = None,
) -> Result:
    """Set the weights that matter least, by h·w², to zero and keep the others as they are.

    Args:
        model: path of the original.
        output: path to write; never the original.
        keep: share of the weights to keep.
        scope: the same share in every layer (as in the paper), or one threshold for all.
        data: as for `quantize`.
        importance: as for `quantize`.
        options: see there.

    Raises:
        OnnxrdError: see `onnxrd.errors`; nothing has been written then.
    """
    _check_share(keep)

    def quantizer(weights: Sequence[Weight], h: Importance) -> Iterator[Quantized]:
        arrays = {w.name: w.array() for w in weights}
        costs = {w.name: h.damped(w.name, w.shape) for w in weights}
        quartic = {name: h.damped_quartic(name) for name in h.quartic}
        pruned = quantizers.prune(arrays, costs, keep, scope=scope, quartic=quartic or None)
        yield from (pruned[w.name] for w in weights)

    return _compress(model, output, quantizer, data, importance, options or Options())


def measure_importance(model: Model, data: Calibration | None, options: Options) -> Importance:
    """Importance as the options ask for it; identity needs no data.

    Raises:
        ImportanceError, CalibrationError: see `onnxrd.importance.diagonal`; or there are no data.
    """
    if options.objective == "identity":
        return identity(model)
    if data is None:
        raise CalibrationError("importance is measured on data: give --data.")
    objective, estimator, runtime, track = (
        options.objective,
        options.estimator,
        options.runtime,
        options.track,
    )
    task = regression(options.task) if objective == "regression" else options.task
    if objective == "fisher" or objective == "regression":
        measured = fisher(model, data, estimator=estimator, task=task, runtime=runtime, track=track)
    else:
        measured = supervised(
            model, data, objective, estimator=estimator, task=task, runtime=runtime, track=track
        )
    return measured if options.damping is None else replace(measured, damping=options.damping)


@dataclass(frozen=True, eq=False)
class _Job:
    """A model to compress, with what guides it."""

    model: Model
    data: Calibration | None
    importance: Importance
    options: Options
    warnings: tuple[str, ...]


def _compress(
    model: PathLike,
    output: PathLike,
    quantizer: Quantizer,
    data: Any,
    importance: PathLike | Importance | None,
    options: Options,
) -> Result:
    """Quantize every weight, write, verify, measure; only then the output appears."""
    original, path = load(model), Path(output)
    weights, skipped = _choose(find_weights(original), options.exclude)
    if not weights:
        but = " besides those excluded" if options.exclude else ""
        quantized = any(reason.startswith(QUANTIZED) for reason in skipped.values())
        why = "its weights are quantized already" if quantized else "see `onnxrd inspect`"
        raise TargetError(f"{original.path} has no weights to compress{but}: {why}.")
    with atomic_output(path, never=(*original.files, *_files(data, importance))) as temporary:
        job = _prepare(original, data, importance, options)
        pairs = zip(weights, quantizer(weights, job.importance))
        tracked = options.track(pairs, "quantizing", len(weights))
        shelf = quantizers.Shelf(scratch(temporary))
        layers = _write(job, {weight: shelf.put(q) for weight, q in tracked}, temporary)
        written = load(temporary)
        if written.nbytes >= original.nbytes and not options.force:
            raise TargetError(
                f"the result would take {written.nbytes} bytes, the original takes "
                f"{original.nbytes}: nothing was written. Take fewer clusters or keep less, or "
                "insist with --force."
            )
        return Result(
            path,
            tuple(layers),
            skipped | _left_dense(weights, layers),
            (original.nbytes, written.nbytes),
            count_parameters(original),
            job.importance.about(),
            sum(layer.distortion for layer in layers) if job.importance.in_nats else None,
            _measure(job, written),
            job.warnings,
        )


def _check_share(keep: float) -> None:
    if not 0 < keep <= 1:
        raise SettingError(f"cannot keep a share of {keep}: take one above 0 and up to 1.")


def _files(*inputs: Any) -> tuple[Path, ...]:
    """Those inputs that are paths."""
    return tuple(Path(given) for given in inputs if isinstance(given, (str, os.PathLike)))


def _choose(found: Sequence[Weight], exclude: Sequence[str]) -> tuple[list[Weight], dict[str, str]]:
    """Weights to compress, and the others that stand for real numbers with their reasons."""
    excluded: set[str] = set()
    for pattern in exclude:
        matching = {w.name for w in found if w.name == pattern or fnmatchcase(w.name, pattern)}
        excluded |= matching
        if not matching:
            raise SettingError(
                f"--exclude {pattern!r} matches no weight. `onnxrd inspect` lists their names."
            )
    chosen = [w for w in found if not w.skip and w.name not in excluded]
    others = {
        w.name: w.skip or "excluded"
        for w in found
        if w.name in excluded or (w.skip and (w.floating or w.skip.startswith(QUANTIZED)))
    }
    return chosen, others


def _prepare(
    model: Model, data: Any, importance: PathLike | Importance | None, options: Options
) -> _Job:
    """Importance from a file, from the data, or none, with what has to be said about it."""
    samples = None
    if data is not None:
        samples = load_data(data, model.inputs, samples=options.samples, seed=options.seed)
    warnings = []
    if importance is not None:
        h = _measured_before(model, importance, options)
        if samples is None:
            warnings.append(
                "no calibration data: the damage is predicted, but NOT measured. Give --data."
            )
    elif samples is not None:
        h = measure_importance(model, samples, options)
    else:
        h = identity(model)
        warnings.append(
            "no calibration data: all weights are taken to be alike (plain magnitude), and the "
            "damage is NOT measured. Give --data."
        )
    if h.fallbacks:
        warnings.append(
            f"{len(h.fallbacks)} weights have no derivative, finite differences stand in for it, "
            f"coarsely: {'; '.join(sorted(set(h.fallbacks.values())))}."
        )
    if h.proxies:
        warnings.append(
            f"{len(h.proxies)} weights have no measured importance, the mean of the others stands "
            f"in for it: {'; '.join(sorted(set(h.proxies.values())))}."
        )
    return _Job(model, samples, h, options, tuple(warnings))


def _measured_before(
    model: Model, importance: PathLike | Importance, options: Options
) -> Importance:
    if not isinstance(importance, Importance):
        importance = load_importance(Path(importance), model)
    importance.check_model(model)
    if options.damping is not None:
        importance = replace(importance, damping=options.damping)
    return importance


def _write(job: _Job, done: Mapping[Weight, Quantized], path: Path) -> list[Layer]:
    """Write the compressed model and verify the file against its dense equivalent."""
    by_name = {weight.name: quantized for weight, quantized in done.items()}
    smaller, dense = job.model.holding(by_name), job.model.prepared()
    slots = encodings.slots(smaller, by_name)
    fragments = encodings.cheapest_together(by_name, slots, force=job.options.encoding)
    if job.options.encoding is None:
        fragments = {n: f for n, f in fragments.items() if f.encoding != "dense"}
    encodings.write(smaller, fragments)
    save(smaller, path)
    layers = []
    for weight, quantized in done.items():
        if weight.name in fragments:
            dense.graph.initializers[weight.name].const_value = _dense(weight, quantized)
            layers.append(_layer(job, weight, quantized, fragments[weight.name]))
    _verify(job, dense, path)
    return layers


def _dense(weight: Weight, quantized: Quantized) -> ir.LazyTensor:
    dtype, shape = ir.DataType.from_numpy(weight.dtype), ir.Shape(weight.shape)
    return ir.LazyTensor(lambda: ir.tensor(quantized.dequantize()), dtype, shape)


def _verify(job: _Job, dense: ir.Model, path: Path) -> None:
    reference, runtime = scratch(path) / "dense.onnx", job.options.runtime
    save(dense, reference, external_above=LARGE)
    if job.data is not None:
        verify(path, reference, next(iter(job.data.batches(4))).feeds, runtime)
        return
    try:
        verify(path, reference, example_feeds(job.model.inputs), runtime)
    except ModelError as error:
        raise ModelError(
            f"the model does not run on made-up inputs, give some by --data: {error}"
        ) from error


def _layer(job: _Job, weight: Weight, quantized: Quantized, fragment: encodings.Fragment) -> Layer:
    approximation = quantized.dequantize()
    h = job.importance.measured(weight.name, weight.shape)
    return Layer(
        weight.name,
        weight.role,
        weight.shape,
        len(quantized.levels) if isinstance(quantized, Codebook) else None,
        float(np.count_nonzero(approximation)) / weight.size,
        fragment.encoding,
        fragment.nbytes,
        8 * fragment.nbytes / weight.size,
        quantizers.weighted_distortion(
            weight.array(), approximation, h, job.importance.quartic.get(weight.name)
        ),
        job.importance.proxies.get(weight.name, ""),
    )


def _left_dense(weights: Sequence[Weight], layers: Sequence[Layer]) -> dict[str, str]:
    done = {layer.name for layer in layers}
    return {w.name: "no encoding of it is smaller" for w in weights if w.name not in done}


def _measure(job: _Job, written: Model) -> Any:
    if job.data is None:
        return None
    return evaluate(
        job.model,
        written,
        job.data,
        task=job.options.task,
        timed=False,
        runtime=job.options.runtime,
        track=job.options.track,
    )
