"""Compress to a target: the fewest bytes for a damage, or the least damage for a size."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd import encodings
from onnxrd.allocation.ladder import Ladder, ladder, slope_for_bits, steps_at, total_distortion
from onnxrd.allocation.search import Trial, search
from onnxrd.allocation.target import Target
from onnxrd.cache import remembered
from onnxrd.calibration import Calibration
from onnxrd.calibration import load as load_data
from onnxrd.compression.curvature import measured_curvature
from onnxrd.compression.held_out import Damage, HeldOut
from onnxrd.compression.network import MOST_SAMPLES, Network
from onnxrd.compression.rows import row_scales
from onnxrd.compression.sequential import Method, Quantization, Sequential
from onnxrd.errors import TargetError
from onnxrd.evaluation import count_parameters
from onnxrd.graph.model import Model, atomic_output, load, scratch
from onnxrd.graph.weights import Weight, find_weights
from onnxrd.importance import Importance
from onnxrd.options import Options
from onnxrd.pipeline.encode import encode
from onnxrd.pipeline.job import Job, PathLike, choose, files_of, prepare
from onnxrd.pipeline.output import finish
from onnxrd.quantizers import Shelf
from onnxrd.report.result import Result

HELD_OUT = 0.25
"""Share of the calibration samples that nothing is fitted to."""

IMPORTANCE_SAMPLES = 512
SENSITIVITY_SAMPLES = 256
WITHIN = {"size": 0.005, "damage": 0.03}
"""How near below its limit a target is thought to be met."""


@dataclass(frozen=True, eq=False)
class Point:
    """One way to compress a network.

    Attributes:
        slope: nats that a bit had to save.
        quantization: the weights.
        nbytes: of the file, exactly.
        damage: on held-out samples; None where it was not asked for.
    """

    slope: float
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
    """

    def __init__(
        self,
        job: Job,
        prepared: ir.Model,
        weights: Sequence[Weight],
        skipped: Mapping[str, str],
        held_out: Calibration,
    ) -> None:
        assert job.data is not None
        self.job, self.prepared, self.weights = job, prepared, weights
        self.skipped, self.held_out_data = skipped, held_out
        self.network = self._network(job.data, MOST_SAMPLES)
        for weight in self.network.loose:
            if (scales := row_scales(self.network, weight)) is not None:
                self.network.scales[weight.name] = scales
        self.sequential = Sequential(self.network)
        heads = tuple(self.network.heads)
        self.held_out = HeldOut(job.model, prepared, heads, held_out, job.options.runtime)

    def _network(self, data: Calibration, most: int) -> Network:
        options = self.job.options
        model, few = self.job.model, _first(data, most)
        return Network(model, self.prepared, self.weights, few, options.task, options.runtime)

    @cached_property
    def ladders(self) -> dict[str, Ladder]:
        """Rate and distortion of each tensor, with its measured curvature."""
        guess = {w.name: ladder(self._scaled(w), self._prior[w.name]) for w in self.weights}
        slope = slope_for_bits(list(guess.values()), 3.0)
        predicted = {name: one.distortion(one.at(slope)) for name, one in guess.items()}
        small = self._network(self.network.data, SENSITIVITY_SAMPLES)
        small.scales = self.network.scales

        def measured() -> Iterable[float]:
            steps, track = steps_at(guess, slope), self.job.options.track
            factors = measured_curvature(small, steps, predicted, track)
            return [factors[name] for name in guess]

        factors = self._remembered("curvature", measured)
        return {
            name: replace(one, curvature=one.curvature * factor)
            for (name, one), factor in zip(guess.items(), factors)
        }

    def _remembered(self, kind: str, compute: Callable[[], Iterable[float]]) -> list[float]:
        """Numbers that the target plays no part in, from the cache if they are there."""
        options = self.job.options
        arrays = remembered(
            options.cache,
            kind,
            self.job.model,
            [self.network.data, self.held_out_data],
            (self._prior, options.task, options.runtime),
            lambda: {kind: np.array(list(compute()))},
        )
        return [float(number) for number in arrays[kind]]

    @cached_property
    def _prior(self) -> dict[str, float]:
        return _mean_importance(self.weights, self.job.importance)

    def _scaled(self, weight: Weight) -> NDArray[Any]:
        """A weight in units in which all its rows have the same step."""
        scales = self.network.scales.get(weight.name)
        return weight.array() if scales is None else weight.array() / scales

    @cached_property
    def method(self) -> Method:
        """The tricks that do the least damage at a middling rate, as measured."""
        slope = slope_for_bits(list(self.ladders.values()), 3.0)
        methods = (Method(), Method(bias=False), Method(repair=False))
        damages = self._remembered(
            "method", lambda: (self._damage(self._quantize(slope, m)).smooth for m in methods)
        )
        return methods[damages.index(min(damages))]

    def point(self, slope: float, *, measured: bool = True) -> Point:
        """Quantize the network at a slope, price it and maybe measure it."""
        done = self._quantize(slope, self.method)
        return Point(slope, done, self.nbytes(done), self._damage(done) if measured else None)

    def nbytes(self, done: Quantization) -> int:
        """Bytes of the file, exactly."""
        codebooks = {name: done.codebook(name) for name in done.integers}
        fragments, _ = encode(self.job, codebooks, self._slots)
        return self._file_size(fragments.values())

    def _quantize(self, slope: float, method: Method) -> Quantization:
        steps = steps_at(self.ladders, slope)
        return self.sequential.quantize(steps, method, self.job.options.track)

    def _damage(self, done: Quantization) -> Damage:
        return self.held_out.measure(done.constants())

    @cached_property
    def _slots(self) -> dict[str, encodings.Slot]:
        names = [weight.name for weight in self.weights]
        return encodings.slots(self.job.model.holding(names), names)

    @cached_property
    def _file_size(self) -> encodings.FileSize:
        return encodings.FileSize(self.job.model.holding(list(self._slots)), self._slots)

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
        done = {w: shelf.put(quantization.codebook(w.name)) for w in self.weights}
        return finish(
            replace(self.job, data=data or self.held_out_data),
            done,
            self.skipped,
            temporary,
            path,
            constants=quantization.biases,
            methods=self._methods(),
        )

    def _methods(self) -> dict[str, str]:
        """Of each weight, how it is quantized."""
        repairing = " with repair" if self.method.repair else ""
        scaled = {name: ", rare rows on a coarser one" for name in self.network.scales}
        loose = {w.name: f"rounded to a grid{scaled.get(w.name, '')}" for w in self.network.loose}
        return loose | {
            layer.weight.name: f"error feedback{repairing}" for layer in self.network.layers
        }

    def to_target(self, target: Target) -> Point:
        """The best point that keeps a target.

        Raises:
            TargetError: none does; the message says what can be had.
        """
        if target.is_size:
            return self._to_size(target)
        return self._to_damage(target)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest slope that make sense."""
        ladders = list(self.ladders.values())
        return slope_for_bits(ladders, 9.0), slope_for_bits(ladders, 0.02)

    def _to_size(self, target: Target) -> Point:
        original = self.job.model
        limit = target.nbytes(original.nbytes, count_parameters(original))
        size = sum(weight.size for weight in self.weights)
        rest = original.nbytes - 4 * size
        bits = min(max(8 * (limit - max(rest, 0)) / size, 0.1), 8.0)

        def attempt(slope: float) -> tuple[float, Point]:
            point = self.point(slope, measured=False)
            return point.nbytes, point

        trials = search(
            attempt,
            slope_for_bits(list(self.ladders.values()), bits),
            limit,
            rising=False,
            within=WITHIN["size"],
            bounds=self.bounds,
        )
        kept = [t.outcome for t in trials if t.value <= limit]
        if not kept:
            least = min(t.outcome.nbytes for t in trials)
            raise TargetError(
                f"{limit} bytes cannot be reached: the smallest file has {least}. Most of that is "
                "the graph and what is left alone; `onnxrd pack` makes these smaller, too."
            )
        best = max(kept, key=lambda point: point.nbytes)
        return replace(best, damage=self._damage(best.quantization))

    def _to_damage(self, target: Target) -> Point:
        def attempt(slope: float) -> tuple[float, Point]:
            point = self.point(slope)
            return limited(point), point

        def limited(point: Point) -> float:
            assert point.damage is not None
            value = {
                "kl": point.damage.distortion,
                "error": point.damage.relative,
                "drop": point.damage.drop,
            }[target.kind]
            if value is None or value != value:
                raise TargetError(_NOT_MEASURED[target.kind])
            return value

        ladders = list(self.ladders.values())
        start = slope_for_bits(ladders, 3.0)
        if target.kind == "kl":
            start *= target.value / max(total_distortion(ladders, start), 1e-300)
        trials = search(
            attempt,
            start,
            target.value,
            rising=True,
            within=WITHIN["damage"],
            bounds=self.bounds,
        )
        kept: list[Trial[Point]] = [t for t in trials if t.value <= target.value]
        if not kept:
            best = min(trials, key=lambda t: t.value)
            raise TargetError(
                f"a {target.kind} of {target.value:g} cannot be kept on the held-out samples: the "
                f"least that was found is {best.value:.3g}, at {best.outcome.nbytes} bytes."
            )
        return min(kept, key=lambda t: t.outcome.nbytes).outcome


_NOT_MEASURED = {
    "drop": "a drop of accuracy cannot be measured: the data have no labels, or the outputs are no "
    "classes. Give labels, or --max-kl.",
    "error": "a relative error is for outputs that are no classes: give --max-kl.",
    "kl": "the damage is not a number: the outputs are not finite on some held-out sample.",
}


def _first(data: Calibration, most: int) -> Calibration:
    return data.subset(range(min(most, data.samples)))


def _mean_importance(weights: Sequence[Weight], importance: Importance) -> dict[str, float]:
    """Mean importance of each tensor; a tensor that nothing seems to depend on gets a little."""
    means = {
        w.name: float(importance.measured(w.name, w.shape).mean(dtype="float64")) for w in weights
    }
    floor = 1e-6 * max(means.values()) or 1.0
    return {name: max(mean, floor) for name, mean in means.items()}


def compress(
    model: PathLike,
    output: PathLike,
    *,
    target: Target,
    data: Any,
    importance: PathLike | Importance | None = None,
    options: Options | None = None,
) -> Result:
    """Write the best file that keeps a target.

    A quarter of the samples is held out: all damage is measured on these, and nothing is fitted to
    them.

    Args:
        model: path of the original.
        output: path to write; never the original.
        target: what to keep.
        data: calibration data in any form that `onnxrd.calibration.load` takes.
        importance: measured before; a path or a value.
        options: see there.

    Raises:
        TargetError: the target is out of reach.
        OnnxrdError: see `onnxrd.errors`; nothing has been written then.
    """
    original, path, options = load(model), Path(output), options or Options()
    with atomic_output(path, never=(*original.files, *files_of(data, importance))) as temporary:
        compressor = prepared_compressor(original, data, importance, options)
        return compressor.write(compressor.to_target(target), temporary, path)


def prepared_compressor(
    original: Model, data: Any, importance: PathLike | Importance | None, options: Options
) -> Compressor:
    """A compressor of a model, whose importance is measured unless it is given.

    Raises:
        OnnxrdError: as for `compress`.
    """
    prepared = original.prepared()
    weights, skipped = choose(original, find_weights(original, prepared), options.exclude)
    samples = load_data(data, original.inputs, samples=options.samples, seed=options.seed)
    fitted, held_out = samples.split(HELD_OUT, options.seed)
    job = prepare(original, _first(fitted, IMPORTANCE_SAMPLES), importance, options)
    return Compressor(replace(job, data=fitted), prepared, weights, skipped, held_out)
