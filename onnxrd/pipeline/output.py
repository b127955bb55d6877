"""The compressed model as a file: written, verified, measured."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd import encodings, quantizers
from onnxrd.errors import ModelError, TargetError
from onnxrd.evaluation import count_parameters, evaluate, example_feeds, verify
from onnxrd.graph.model import Model, load, save, scratch
from onnxrd.graph.weights import Weight
from onnxrd.pipeline.encode import encode
from onnxrd.pipeline.job import Job, replace_constants
from onnxrd.quantizers import Codebook, Quantized, Trellis, VectorCodebook
from onnxrd.report.result import Layer, Result

Array = NDArray[Any]

EPS = {ir.DataType.FLOAT16: 2.0**-10, ir.DataType.BFLOAT16: 2.0**-7}
"""Relative errors that numbers of less than single precision may have."""

LARGE = 1 << 26
"""Bytes of weights above which a model is not put together in memory to be verified."""


def finish(
    job: Job,
    done: Mapping[Weight, Quantized],
    skipped: Mapping[str, str],
    temporary: Path,
    path: Path,
    *,
    constants: Mapping[str, Array] | None = None,
    halves: Collection[str] = (),
    methods: Mapping[str, str] | None = None,
    as_quantized: bool = False,
) -> Result:
    """Write, verify and measure a compressed model.

    Args:
        job: the original, and what guided its compression.
        done: what became of the weights.
        skipped: the other floating-point constants with their reasons.
        temporary: where to write.
        path: where the file will be.
        constants: other constants of the graph that changed, by name.
        halves: those of them that are in half precision.
        methods: weight → how it was quantized, in words.
        as_quantized: also weights that no encoding makes smaller get the values that they were
            quantized to, since the damage was measured with these; else they stay as they were.

    Raises:
        TargetError: the file is not smaller than the original.
        VerificationError: it does not do what it should.
    """
    original = job.model
    layers, warnings = _write(
        job, done, constants or {}, halves, methods or {}, temporary, as_quantized
    )
    written = load(temporary)
    if not job.options.force and (not layers or written.nbytes >= original.nbytes):
        raise TargetError(
            f"the result would take {written.nbytes} bytes, the original takes "
            f"{original.nbytes}{'' if layers else ', and no weight became smaller'}: nothing was "
            "written. Take fewer clusters or keep less, or insist with --force."
        )
    return Result(
        path,
        tuple(layers),
        {**skipped, **_left_dense(done, layers, tight=bool(warnings))},
        (original.nbytes, written.nbytes),
        count_parameters(original),
        job.importance.about(),
        sum(layer.distortion for layer in layers) if job.importance.in_nats else None,
        _measure(job, written),
        (*job.warnings, *warnings),
    )


def _write(
    job: Job,
    done: Mapping[Weight, Quantized],
    constants: Mapping[str, Array],
    halves: Collection[str],
    methods: Mapping[str, str],
    path: Path,
    as_quantized: bool,
) -> tuple[list[Layer], tuple[str, ...]]:
    """Write the compressed model and verify the file against its dense equivalent.

    Returns: what became of its weights, and what has to be said about it.
    """
    by_name = {weight.name: quantized for weight, quantized in done.items()}
    shell, dense = job.holding(by_name, constants), job.model.prepared()
    replace_constants(dense, constants)
    vectors = {shell.names[name]: constants[name] for name in halves}
    slots = encodings.slots(shell.model, [*by_name, *vectors])
    fragments, warnings = encode(job, by_name, slots)
    if job.options.encoding is None and not as_quantized:
        fragments = {n: f for n, f in fragments.items() if f.encoding != "dense"}
    encodings.write(shell.model, fragments | encodings.half(vectors, slots))
    save(shell.model, path)
    layers = []
    for weight, quantized in done.items():
        if weight.name in fragments:
            dense.graph.initializers[weight.name].const_value = _dense(weight, quantized)
            layer = _layer(job, weight, quantized, fragments[weight.name])
            rivals = _rivals(quantized, slots[weight.name], layer.encoding)
            method = methods.get(weight.name, "")
            layers.append(replace(layer, method=method, rivals=rivals))
    _verify(job, dense, path)
    return layers, warnings


def _dense(weight: Weight, quantized: Quantized) -> ir.LazyTensor:
    dtype, shape = ir.DataType.from_numpy(weight.dtype), ir.Shape(weight.shape)
    return ir.LazyTensor(lambda: ir.tensor(quantized.dequantize()), dtype, shape)


def _verify(job: Job, dense: ir.Model, path: Path) -> None:
    reference, runtime = scratch(path) / "dense.onnx", job.options.runtime
    save(dense, reference, external_above=LARGE)
    narrow = {value.dtype for value in dense.graph.initializers.values()} & EPS.keys()
    precision = max((EPS[dtype] for dtype in narrow if dtype), default=0.0)
    if job.data is not None:
        feeds = next(iter(job.data.batches(4))).feeds
        verify(path, reference, feeds, runtime, precision=precision)
        return
    try:
        verify(path, reference, example_feeds(job.model.inputs), runtime, precision=precision)
    except ModelError as error:
        raise ModelError(
            f"the model does not run on made-up inputs, give some by --data: {error}"
        ) from error


def _layer(job: Job, weight: Weight, quantized: Quantized, fragment: encodings.Fragment) -> Layer:
    approximation = quantized.dequantize()
    h = job.importance.measured(weight.name, weight.shape)
    return Layer(
        weight.name,
        weight.role,
        weight.shape,
        len(quantized.levels) if isinstance(quantized, Codebook | VectorCodebook) else None,
        float(np.count_nonzero(approximation)) / weight.size,
        fragment.encoding,
        fragment.nbytes + fragment.portion,
        8 * (fragment.nbytes + fragment.portion) / weight.size,
        quantizers.weighted_distortion(
            weight.array(), approximation, h, job.importance.quartic.get(weight.name)
        ),
        job.importance.proxies.get(weight.name, ""),
        step=_step(quantized),
        together=quantized.dimensions if isinstance(quantized, VectorCodebook) else 1,
    )


def _step(quantized: Quantized) -> float | None:
    if isinstance(quantized, Trellis):
        return float(quantized.step)
    step = encodings.spacing(quantized.levels) if isinstance(quantized, Codebook) else None
    return None if step is None else float(step)


def _rivals(quantized: Quantized, slot: encodings.Slot, chosen: str) -> dict[str, int]:
    """Bytes in all other encodings, in each on its own."""
    others = encodings.options(quantized, slot)
    return {f.encoding: f.nbytes for f in others if f.encoding != chosen}


def _left_dense(
    weights: Iterable[Weight], layers: Sequence[Layer], *, tight: bool
) -> dict[str, str]:
    done = {layer.name for layer in layers}
    why = "no encoding of it is smaller" + (" and loads in the memory allowed" if tight else "")
    return {w.name: why for w in weights if w.name not in done}


def _measure(job: Job, written: Model) -> Any:
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
