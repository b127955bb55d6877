"""Slopes of a network's outputs along moves of a weight, by forward passes alone.

A central difference moves a weight by ±ε along a direction v and runs the network twice. With the
cotangents s of the reverse pass that it stands in for, one pair of runs gives the slope of every
sample of a batch, for all seeds at once:

    ∂(s_n·z_n)/∂v ≈ s_n·(z_n(w + ε v) − z_n(w − ε v)) / 2ε

Only the part of the graph that the weight has an influence on runs again. No operator is looked
into, so this works on any graph that runs.

How far to step: rounding in float32 makes an error ∝ 1/ε; kinks and curvature make one that grows
with ε. Where the two meet differs by orders of magnitude from one weight to the next. So steps are
tried on a ladder, and the two neighbours that agree best have the best step between them.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.autodiff.trace import Trace, run_trace, with_outputs
from onnxrd.calibration import Batch, Calibration, aligned
from onnxrd.distortion import Tasks, find_heads, ignored
from onnxrd.errors import ImportanceError, ModelError
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime, Session
from onnxrd.graph.stages import reads
from onnxrd.graph.weights import Weight, find_weights
from onnxrd.importance.estimators import Estimator

Array = NDArray[Any]
Region = tuple[int | slice, ...]
"""Index of the entries of a weight that move together: one of them, a channel, or () for all."""

LADDER = 4.0 ** np.arange(-6, 1)
"""Steps that are tried, in units of the weight's root mean square."""

TUNED_ON = 8
"""Regions of a weight, and samples, on which they are tried."""

LARGEST_BATCH = 32
MEMORY = 1 << 29
"""Bytes that one batch's intermediate values and seeds may take, roughly."""


class Suffix:
    """A network as a function of one weight; what the weight cannot change runs once a batch.

    Args:
        trace: of the network.
        weight: name of an initializer.
        sources: names of the values asked for.
        runtime: threads and provider.

    Attributes:
        sources: those of them that the weight has an influence on.
    """

    def __init__(
        self, trace: Trace, weight: str, sources: Sequence[str], runtime: Runtime = DEFAULT
    ) -> None:
        graph, start = trace.model.graph, trace.model.graph.initializers[weight]
        behind = {start}
        for node in graph:
            if any(value in behind for value in reads(node)):
                behind.update(node.outputs)
        here = {v.name: v for node in graph for v in node.outputs} | {
            v.name: v for v in graph.inputs
        }
        wanted = [here[name] for name in dict.fromkeys(sources)]
        changed = [value for value in wanted if value in behind]
        border = _border(trace, behind)
        self.sources = tuple(str(value.name) for value in changed)
        both = list(dict.fromkeys((*wanted, *border)))
        self._whole = Session(with_outputs(trace.model, both), base=trace.base, runtime=runtime)
        if changed:
            part = _extract(trace, start, border, changed)
            self._part = Session(part, base=trace.base, runtime=runtime)
        self._weight = weight

    def hold(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """Run the whole network: all sources, and what `run` needs, in onnxruntime's memory."""
        return self._whole.run_values(feeds)

    def run(self, held: Mapping[str, Any], weight: Array) -> dict[str, Array]:
        """The sources that change, for another value of the weight."""
        return self._part.run({**held, self._weight: weight})


@dataclass(frozen=True, eq=False)
class _Point:
    """A weight and a batch of samples: where slopes are taken.

    Attributes:
        suffix: the network as a function of the weight.
        held: what its runs need.
        seeds: [S, N, Z], cotangents of the sources that change, one row for each reverse pass.
        padded: samples in a run, N of them real.
        weight: [*weight], the value to move away from.
    """

    suffix: Suffix
    held: Mapping[str, Any]
    seeds: Array
    padded: int
    weight: Array

    def slopes(self, region: Region, signs: Array, step: float) -> NDArray[np.float64]:
        """[S, N]: slope of every seeded sample along ±1 in each entry of a region."""
        ahead, back = (self._moved(region, sign * step * signs) for sign in (1, -1))
        moved = ahead[region].astype(np.float64) - back[region]
        length = float(np.sqrt(np.mean(moved**2)))  # 2 ε, less what was rounded away
        samples = self.seeds.shape[1]
        if length == 0:
            return np.zeros((len(self.seeds), samples))
        ends = (flat(self.suffix.run(self.held, w), self.padded)[:samples] for w in (ahead, back))
        with np.errstate(over="ignore", invalid="ignore"):
            change = next(ends).astype(np.float64) - next(ends)
            return np.asarray(np.einsum("snz,nz->sn", self.seeds, change) / length)

    def _moved(self, region: Region, by: Array) -> Array:
        moved = self.weight.copy()
        moved[region] += by.astype(moved.dtype)
        return moved


class Differences:
    """Squared slopes along moves of a network's weights, with an estimator's cotangents.

    Args:
        model: the network.
        data: samples.
        estimator: draws the same cotangents as for autodiff.
        task: overrides what the graph's end says.
        runtime: threads and provider.

    Attributes:
        heads: of the network.
        weights: those to be compressed, by name.
        size: samples in a run; 1 if samples influence each other.
    """

    def __init__(
        self,
        model: Model,
        data: Calibration,
        estimator: Estimator,
        task: Tasks = None,
        runtime: Runtime = DEFAULT,
    ) -> None:
        prepared = model.prepared()
        data = aligned(model, data, runtime, ignored(task, model.outputs))
        self.heads = find_heads(prepared, task, sample_axis=data.sample_axis)
        self.weights = {w.name: w for w in find_weights(model, prepared) if not w.skip}
        self.data, self._estimator, self._runtime = data, estimator, runtime
        fixed = next((n for spec in model.inputs if (n := spec.fixed_batch)), None)
        self._fixed = fixed if data.sample_axis else 1
        self._sources = list(dict.fromkeys(head.source for head in self.heads))
        probe = next(iter(data.batches(1)))
        self._trace = run_trace(prepared, model.path.parent, probe.feeds, runtime=runtime)
        self.size = self._batch_size()

    def batches(self, samples: int) -> int:
        """How many there are in a pass over so many samples."""
        return -(-samples // self.size)

    def squares(
        self, weight: Weight, regions: Sequence[Region], directions: int, data: Calibration
    ) -> Iterator[tuple[Region, float]]:
        """Σ over samples and seeds of squared slopes, for each batch, region and direction.

        Args:
            weight: one of `weights`.
            regions: of its entries.
            directions: for each region; random signs, new ones for each batch.
            data: all of the samples, or some.

        Raises:
            ImportanceError: a slope is not finite.
        """
        suffix = Suffix(self._trace, weight.name, self._sources, self._runtime)
        if not suffix.sources:
            yield from ((region, 0.0) for region in regions)
            return
        array, done = weight.array(), 0
        step = self._tuned(suffix, array, regions)
        for batch in data.batches(self.size):
            point = self._point(suffix, array, batch, done)
            rng = np.random.default_rng([self._estimator.seed, done])
            for region, _ in itertools.product(regions, range(directions)):
                square = float((point.slopes(region, _signs(rng, array[region]), step) ** 2).sum())
                if not np.isfinite(square):
                    raise ImportanceError(
                        f"weight {weight.name!r}: outputs are not finite near its value. "
                        "Do the data have the scale that the model was trained with?"
                    )
                yield region, square * self._estimator.scale
            done += batch.size

    def _tuned(self, suffix: Suffix, array: Array, regions: Sequence[Region]) -> float:
        rng = np.random.default_rng(self._estimator.seed)
        chosen = [regions[k] for k in rng.permutation(len(regions))[:TUNED_ON]]
        moves = [(region, _signs(rng, array[region])) for region in chosen]
        unit = float(np.sqrt(np.mean(array.astype(np.float64) ** 2))) or 1.0
        size, slopes = min(TUNED_ON, self.size), []
        for k, batch in enumerate(itertools.islice(self.data.batches(size), TUNED_ON // size)):
            point = self._point(suffix, array, batch, k * size)
            slopes.append([[point.slopes(*m, unit * step) for m in moves] for step in LADDER])
        together = np.concatenate(slopes, axis=-1)  # [R, M, S, N]
        return unit * best_step(LADDER, together.reshape(*together.shape[:2], -1))

    def _point(self, suffix: Suffix, array: Array, batch: Batch, first: int) -> _Point:
        """Everything at hand to take slopes on one batch, whose first sample has this number."""
        held = suffix.hold(batch.feeds)
        values = {name: held[name].numpy() for name in self._sources}
        padded = self._fixed or batch.size
        seeds = [
            flat({name: seed[name] for name in suffix.sources}, padded)[: batch.size]
            for seed in self._estimator.seeds(self.heads, values, first)
        ]
        return _Point(suffix, held, np.stack(seeds), padded, array)

    def _batch_size(self) -> int:
        """As many samples as fit, one where they influence each other or cannot run together."""
        if self._fixed:
            return self._fixed
        shapes = self._trace.shapes
        outputs = [v for v in shapes if v.name in self._sources]
        whole = Session(
            with_outputs(self._trace.model, outputs), base=self._trace.base, runtime=self._runtime
        )
        pair = next(iter(self.data.batches(2)))
        alone = [whole.run(batch.feeds) for batch in itertools.islice(self.data.batches(1), 2)]
        try:
            together = flat(whole.run(pair.feeds), pair.size)
        except (ModelError, ValueError):
            return 1
        apart = np.concatenate([flat(values, 1) for values in alone])
        if together.shape != apart.shape or not _same(together, apart):
            return 1
        passes = sum(1 for _ in self._estimator.seeds(self.heads, alone[0], 0))
        activations = sum(int(np.prod(s)) for v, s in shapes.items() if not v.is_initializer())
        nbytes = 4 * activations + 8 * passes * apart.shape[1]
        return int(np.clip(MEMORY // nbytes, 1, LARGEST_BATCH))


def flat(values: Mapping[str, Array], samples: int) -> Array:
    """Values of one or more sources, [N, …] each, side by side: [N, Z]."""
    return np.concatenate([value.reshape(samples, -1) for value in values.values()], axis=1)


def _same(found: Array, expected: Array) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max())


def best_step(steps: Array, slopes: Array) -> float:
    """Where on a ladder of steps the error is smallest: between the two that agree best.

    Args:
        steps: [R], ascending.
        slopes: [R, M, …], found with each step for M moves.

    Returns: the geometric mean of two neighbours; of the middle ones where nothing has a slope.
    """
    ends = slopes[:-1], slopes[1:]
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.linalg.norm(ends[1] - ends[0], axis=2)
        size = np.linalg.norm(ends[0], axis=2) + np.linalg.norm(ends[1], axis=2)
        known = np.isfinite(size) & (size > 0)
    gap = [d[k].sum() / s[k].sum() if k.any() else 1 for d, s, k in zip(apart, size, known)]
    k = int(np.argmin(gap)) if min(gap) < 1 else (len(steps) - 1) // 2
    return float(np.sqrt(steps[k] * steps[k + 1]))


def _signs(rng: np.random.Generator, like: Array) -> Array:
    return np.asarray(rng.integers(0, 2, np.shape(like), np.int8) * 2.0 - 1.0)


def _border(trace: Trace, behind: set[ir.Value]) -> list[ir.Value]:
    """Tensors that must be fed for `behind` to be computed; constants stay in the graph."""
    nodes = [node for node in trace.model.graph if any(v in behind for v in node.outputs)]
    main = {v for node in trace.model.graph for v in node.outputs} | set(trace.model.graph.inputs)
    border: dict[ir.Value, None] = {}
    while nodes:
        for value in reads(nodes.pop()):
            if value not in main or value in behind or value in trace.constants:
                continue
            producer = value.producer()
            if value in trace.dtypes or producer is None:
                border[value] = None
            else:  # a sequence, or strings: computed again
                nodes.append(producer)
    return list(border)


def _extract(
    trace: Trace, weight: ir.Value, border: Sequence[ir.Value], outputs: Sequence[ir.Value]
) -> ir.Model:
    graph = ir.convenience.extract(trace.model.graph, [weight, *border], outputs)
    del graph.initializers[str(weight.name)]
    for value, original in zip(graph.inputs, (weight, *border)):
        value.const_value = None
        value.type = ir.TensorType(ir.DataType.from_numpy(trace.dtypes[original]))
        value.shape = None
    return ir.Model(graph, ir_version=trace.model.ir_version)
