"""A network prepared for compression, from which points at any rate can be had."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd import encodings
from onnxrd.allocation.ladder import Ladder, slope_for_bits, slope_for_distortion, steps_at
from onnxrd.cache import Notes, remembered
from onnxrd.calibration import Calibration, aligned
from onnxrd.calibration import load as load_data
from onnxrd.compression.directions import directions
from onnxrd.compression.held_out import Damage, HeldOut, best_of
from onnxrd.compression.ladders import by_importance, divide, sensitivity
from onnxrd.compression.network import MOST_SAMPLES, Network
from onnxrd.compression.quantization import Method, Quantization
from onnxrd.compression.sequential import Sequential
from onnxrd.distortion import ignored
from onnxrd.graph.halves import halves
from onnxrd.graph.model import Model, PathLike, scratch
from onnxrd.graph.weights import STAYS, Weight, find_weights
from onnxrd.importance import Importance
from onnxrd.options import Options
from onnxrd.pipeline.encode import encode
from onnxrd.pipeline.job import EXCLUDED, Job, Shell, choose, prepare, replace_constants
from onnxrd.pipeline.output import finish
from onnxrd.quantizers import Quantized, Shelf, Stacked, Trellis
from onnxrd.report.result import Result

HELD_OUT = 0.25
"""Share of the calibration samples that nothing is fitted to."""

IMPORTANCE_SAMPLES = 512
SENSITIVITY_SAMPLES = 256

COMPARED_AT = 0.005
"""Nats, or relative squared error, at which methods are compared: once, whatever the targets."""

METHODS = (Method(), Method(bias=False), Method(repair=False), Method(directions=True))
"""The first one is taken unless another is clearly better."""


@dataclass(frozen=True, eq=False)
class Point:
    """One way to compress a network.

    Attributes:
        slope: nats that a bit had to save.
        method: the tricks that were used.
        quantization: the weights.
        nbytes: of the file, exactly.
        damage: on held-out samples; None where it was not asked for.
    """

    slope: float
    method: Method
    quantization: Quantization
    nbytes: int
    damage: Damage | None


class Compressor:
    """A network with everything prepared: each further point costs a walk or two through it.

    Args:
        job: the original, the samples to fit on, its importance.
        prepared: the prepared graph that the weights belong to.
        weights: those to compress.
        skipped: the other floating-point constants with their reasons.
        held_out: the samples to measure on.
        vectors: what may be stored in half precision, rounded, by name.

    Attributes:
        halves: those vectors that are.
    """

    def __init__(
        self,
        job: Job,
        prepared: ir.Model,
        weights: Sequence[Weight],
        skipped: Mapping[str, str],
        held_out: Calibration,
        vectors: Mapping[str, NDArray[Any]],
    ) -> None:
        assert job.data is not None
        self.job, self.prepared, self.weights = job, prepared, weights
        known = {name: vectors[name] for name in vectors if name in self._shell.names}
        self.halves = encodings.worth_halving(known, job.model.opset)
        replace_constants(prepared, self.halves)
        halved = {n: skipped[n].replace(STAYS, "in half precision") for n in self.halves}
        self.skipped, self.held_out_data = {**skipped, **halved}, held_out
        self.network = self._network(job.data, MOST_SAMPLES)
        divide(self.network, job.importance, self.network.batches)
        self.sequential = Sequential(self.network)
        self._trials: dict[Method, Notes] = {}
        self.held_out = self._measured_on(held_out)

    def _network(self, data: Calibration, most: int) -> Network:
        options = self.job.options
        model, few = self.job.model, _first(data, most)
        network = Network(model, self.prepared, self.weights, few, options.task, options.runtime)
        network.halves = self.halves
        network.fixed = {
            layer.form.bias
            for layer in network.layers
            if layer.form.bias not in self._shell.names
            or self.skipped.get(layer.form.bias) == EXCLUDED
        }
        return network

    def _measured_on(self, data: Calibration) -> HeldOut:
        heads, runtime = tuple(self.network.heads), self.job.options.runtime
        return HeldOut(self.job.model, self.prepared, heads, data, runtime)

    @cached_property
    def ladders(self) -> dict[str, Ladder]:
        """Rate and distortion of each tensor or set of its rows, with its measured curvature."""
        job = self.job

        def measured() -> Iterable[float]:
            small, track = self._network(self.network.data, SENSITIVITY_SAMPLES), job.options.track
            factors = sensitivity(small, job.importance, self._prior, track)
            return [factors[weight.name] for weight in self.weights]

        found = by_importance(self.network, self._prior)
        factors = self.remembered("curvature", measured)
        return {
            name: replace(one, curvature=one.curvature * factor)
            for parts, factor in zip(found.values(), factors)
            for name, one in parts.items()
        }

    def remembered(
        self, kind: str, compute: Callable[[], Iterable[float]], *settings: Any
    ) -> list[float]:
        """Numbers that depend on the job and some settings, from the cache if they are there."""
        model, data = self.job.model, self._all_data
        arrays = remembered(
            self.job.options.cache,
            kind,
            model,
            data,
            (*self._fixed, *settings),
            lambda: {kind: np.array(list(compute()))},
        )
        return [float(number) for number in arrays[kind]]

    def trials(self, method: Method) -> Notes:
        """The points found so far by a method, in runs before this one, too, if there is a cache.

        Rows are a slope, bytes of the file, and damage: distortion, relative, drop of accuracy; NaN
        for what was not measured.
        """
        if method not in self._trials:
            cache, model, settings = self.job.options.cache, self.job.model, self._fixed
            settings = (*settings, *self.storage, method)
            self._trials[method] = Notes(cache, "trials", model, self._all_data, settings)
        return self._trials[method]

    @property
    def storage(self) -> tuple[Any, ...]:
        """All settings that the bytes of a file depend on, beside the weights."""
        options = self.job.options
        return options.keep_names, options.encoding, options.max_load_memory

    @property
    def _fixed(self) -> tuple[Any, ...]:
        return self._prior, self.job.options.task, self.job.options.runtime

    @property
    def _all_data(self) -> list[Calibration]:
        return [self.network.data, self.held_out_data]

    @cached_property
    def _prior(self) -> dict[str, float]:
        return _mean_importance(self.weights, self.job.importance)

    @cached_property
    def method(self) -> Method:
        """The tricks that pay, as measured on held-out samples."""
        number, trellis = self.remembered("method", self._compared)
        return _with_trellis(METHODS[int(number)], trellis=bool(trellis))

    def slope_for(self, damage: float) -> float:
        """The slope at which so much damage is expected, in nats or as relative squared error."""
        return slope_for_distortion(list(self.ladders.values()), damage * self.held_out.unit)

    def _compared(self) -> tuple[int, bool]:
        """The number of the best method, and whether it had better be on trellises."""
        slope = self.slope_for(COMPARED_AT)
        tried = [self._quantize(slope, method) for method in METHODS]
        damages = [self.measure(one) for one in tried]
        best = best_of([one.smooth for one in damages], [one.bits for one in tried])
        plain, trellis = METHODS[best], _with_trellis(METHODS[best], trellis=True)
        on_trellis = self._quantize(slope, trellis)
        pair = (on_trellis, tried[best])
        both, nbytes = [self.measure(on_trellis), damages[best]], [self.nbytes(one) for one in pair]
        for found in zip((trellis, plain), pair, nbytes, both):
            self.trials(found[0]).add(*_row(Point(slope, *found)))
        # nothing is fitted more closely on a trellis: all samples may judge it
        fitted = self._measured_on(self.network.data)
        smooth = [
            np.append(damage.smooth, fitted.measure(done.constants()).smooth)
            for damage, done in zip(both, pair)
        ]
        weights = sum(weight.size for weight in self.weights)
        return best, best_of(smooth, [8 * one / weights for one in nbytes]) == 0

    def point(self, slope: float, *, method: Method | None = None, measured: bool = True) -> Point:
        """Quantize the network at a slope, price it and maybe measure it."""
        method = method or self.method
        done = self._quantize(slope, method)
        damage = self.measure(done) if measured else None
        point = Point(slope, method, done, self.nbytes(done), damage)
        self.trials(method).add(*_row(point))
        return point

    def nbytes(self, done: Quantization) -> int:
        """Bytes of the file, exactly."""
        fragments, _ = encode(self.job, done.weights, self._slots)
        vectors = encodings.half(self._named(self.halves), self._slots)
        return self._file_size([*fragments.values(), *vectors.values()])

    def _quantize(self, slope: float, method: Method) -> Quantization:
        steps, track = steps_at(self.ladders, slope), self.job.options.track
        if method.directions and self.network.directions is None:
            self.network.directions = directions(self.network, self.held_out.temperature, track)
        return self.sequential.quantize(steps, method, track)

    def measure(self, done: Quantization) -> Damage:
        """The damage on held-out samples."""
        return self.held_out.measure(done.constants())

    @cached_property
    def _shell(self) -> Shell:
        return self.job.holding([weight.name for weight in self.weights])

    def _named(self, vectors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Vectors by the names that they have in the file."""
        return {self._shell.names[name]: vector for name, vector in vectors.items()}

    @cached_property
    def _slots(self) -> dict[str, encodings.Slot]:
        names = [weight.name for weight in self.weights]
        return encodings.slots(self._shell.model, [*names, *self._named(self.halves)])

    @cached_property
    def _file_size(self) -> encodings.FileSize:
        return encodings.FileSize(self._shell.model, self._slots)

    def write(
        self, point: Point, temporary: Path, path: Path, data: Calibration | None = None
    ) -> Result:
        """Write, verify and measure the file of a point; see `finish`.

        Args:
            point: what to write.
            temporary: where to write.
            path: where the file will be.
            data: the samples to measure on, if not those held out.
        """
        shelf, quantization = Shelf(scratch(temporary)), point.quantization
        done = {w: shelf.put(quantization.weights[w.name]) for w in self.weights}
        return finish(
            replace(self.job, data=data or self.held_out_data),
            done,
            self.skipped,
            temporary,
            path,
            constants=self.halves | quantization.biases,
            halves=self.halves,
            methods=self._methods(point),
            as_quantized=True,
        )

    def _methods(self, point: Point) -> dict[str, str]:
        """Of each weight, how it is quantized."""
        method, weights = point.method, point.quantization.weights
        feedback = "error feedback" + (" to both sides" if method.directions else "")
        feedback += " with repair" if method.repair else ""
        loose = {w.name: "rounded to a grid" for w in self.network.loose}
        for name, sets in self.network.row_sets.items():
            loose[name] += f" of {len(sets.rows)} steps, by how often rows are looked up"
        ways = loose | {layer.weight.name: feedback for layer in self.network.layers}
        return {
            name: _on_trellis(way) if _has_trellis(weights[name]) else way
            for name, way in ways.items()
        }

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest slope that make sense."""
        ladders = list(self.ladders.values())
        return slope_for_bits(ladders, 9.0), max(one.largest_slope for one in ladders)


def prepared_compressor(
    original: Model, data: Any, importance: PathLike | Importance | None, options: Options
) -> Compressor:
    """A compressor of a model, whose importance is measured unless it is given.

    Raises:
        OnnxrdError: as for `compress`.
    """
    prepared = original.prepared()
    found = find_weights(original, prepared)
    weights, skipped = choose(original, found, options.exclude)
    vectors = halves(weight for weight in found if skipped.get(weight.name) == weight.skip)
    samples = load_data(data, original.inputs, samples=options.samples, seed=options.seed)
    unseen = ignored(options.task, original.outputs)
    samples = aligned(original, samples, options.runtime, unseen)
    fitted, held_out = samples.split(HELD_OUT, options.seed)
    job = prepare(original, _first(fitted, IMPORTANCE_SAMPLES), importance, options)
    return Compressor(replace(job, data=fitted), prepared, weights, skipped, held_out, vectors)


def _has_trellis(quantized: Quantized) -> bool:
    parts = quantized.parts if isinstance(quantized, Stacked) else [quantized]
    return any(isinstance(part, Trellis) for part in parts)


def _on_trellis(way: str) -> str:
    return way.replace("a grid", "a trellis") if "a grid" in way else f"{way}, on a trellis"


def _with_trellis(method: Method, *, trellis: bool) -> Method:
    """The same on trellises, which have errors fed back to one side only; or as it is."""
    return replace(method, directions=False, trellis=True) if trellis else method


def _row(point: Point) -> tuple[float, ...]:
    """What `Compressor.trials` keeps of a point."""
    damage = point.damage or Damage(math.nan, math.nan, np.zeros(0), None)
    drop = math.nan if damage.drop is None else damage.drop
    return point.slope, point.nbytes, damage.distortion, damage.relative, drop


def _first(data: Calibration, most: int) -> Calibration:
    return data.subset(range(min(most, data.samples)))


def _mean_importance(weights: Sequence[Weight], importance: Importance) -> dict[str, float]:
    """Mean importance of each tensor; a tensor that nothing seems to depend on gets a little."""
    means = {
        w.name: float(importance.measured(w.name, w.shape).mean(dtype="float64")) for w in weights
    }
    floor = 1e-6 * max(means.values()) or 1.0
    return {name: max(mean, floor) for name, mean in means.items()}
