"""Per-sample squared gradients of a network's weights, run by onnxruntime.

Forward and reverse pass are two sessions. The forward one is the network itself with the values
that the reverse pass reads as further outputs; they go from one to the other without a copy. So
several reverse passes (classes, probes) share one forward pass, the network keeps its own opset and
operators, and the reverse pass is written for the concrete shapes at hand.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.autodiff import tables
from onnxrd.autodiff.engine import Mode, NotBatchableError, ReversePass, reverse_pass
from onnxrd.autodiff.lending import lend
from onnxrd.autodiff.lowering import lower
from onnxrd.autodiff.trace import Trace, run_trace, signature, with_outputs
from onnxrd.distortion import check_same_shape
from onnxrd.errors import ModelError
from onnxrd.graph.session import DEFAULT, Runtime, Session, view

Array = NDArray[Any]
log = logging.getLogger(__name__)

AGREEMENT = 1e-3
"""Largest relative L1 difference between the batched path and the reference on two samples."""

COMPARED = 1 << 16
"""Entries of each weight that are compared, about: all of them, of all but the largest."""


@dataclass(frozen=True, eq=False)
class Forward:
    """One forward pass: what the seeds are made from, and what the reverse pass will read.

    Attributes:
        sources: arrays at the heads' sources, by name.
        key: which specialised pair of sessions ran.
        taps: values in onnxruntime's memory, by input name of the reverse pass.
        feeds: what was fed; a tap that is an input of the network lies in its memory.
    """

    sources: Mapping[str, Array]
    key: tuple[Any, ...]
    taps: Mapping[str, Any]
    feeds: Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class _Specialised:
    passes: ReversePass
    forward: Session
    backward: Session
    tables: Mapping[str, tuple[int, ...]]
    sources: Mapping[str, tuple[int, ...]]


class Gradients:
    """Gradients of some weights of a network, for inputs of any shape that it accepts.

    Args:
        model: prepared graph.
        base: folder of its external data.
        sources: names of the values that seeds are fed at.
        targets: names of the weights (initializers of `model`), or of any values.
        axes: by name, the axes of values whose second moments are asked for.
        runtime: threads and provider.
        dtype: precision of the reverse pass.
    """

    def __init__(
        self,
        model: ir.Model,
        base: Path,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        axes: Mapping[str, int] | None = None,
        runtime: Runtime = DEFAULT,
        dtype: type = np.float32,
    ) -> None:
        self._model, self._base, self._runtime, self._dtype = model, base, runtime, dtype
        self._axes = axes
        self._sources, self._targets = list(dict.fromkeys(sources)), targets
        self._traces: dict[tuple[Any, ...], Trace] = {}
        self._blocked: dict[tuple[Any, ...], Mapping[str, str]] = {}
        self._rewritten: dict[tuple[Any, ...], dict[str, dict[str, None]]] = {}
        self._specialised: dict[tuple[Any, ...], _Specialised] = {}

    def blocked(self, feeds: Mapping[str, Array]) -> dict[str, str]:
        """Weights whose gradient is out of reach: name → the operator in the way."""
        self.trace(feeds)
        return dict(self._blocked[signature(feeds)])

    def rewritten(self, feeds: Mapping[str, Array]) -> dict[str, tuple[str, ...]]:
        """Weights whose gradient goes through rewritten operators: name → what was done to them."""
        self.trace(feeds)
        return {name: tuple(how) for name, how in self._rewritten[signature(feeds)].items()}

    def trace(self, feeds: Mapping[str, Array]) -> Trace:
        """What a run on these inputs showed (kept for the next time).

        It is a run of the network with the operators that stand in the way of gradients rewritten,
        one type of them after the other; one that cannot be run in simpler terms stays as it is.
        """
        key = signature(feeds)
        if key in self._traces:
            return self._traces[key]
        trace = self._run(self._model.clone(), feeds)
        rewritten: dict[str, dict[str, None]] = {}
        stay: set[str] = set()
        while True:
            passes = self._reverse_pass(trace, "gradient", feeds)
            kind = next((n.op_type for n in passes.obstacles if n.op_type not in stay), None)
            if kind is None:
                break
            trace, done = self._lowered(trace, passes, kind, feeds)
            if not done:
                stay.add(kind)
            for node, how in done.items():
                for name in sorted(passes.obstacles[node]):
                    rewritten.setdefault(name, {})[how] = None
        self._traces[key], self._blocked[key] = trace, passes.blocked
        self._rewritten[key] = rewritten
        return trace

    def _run(self, model: ir.Model, feeds: Mapping[str, Array]) -> Trace:
        return run_trace(model, self._base, feeds, runtime=self._runtime)

    def _lowered(
        self, trace: Trace, passes: ReversePass, kind: str, feeds: Mapping[str, Array]
    ) -> tuple[Trace, Mapping[ir.Node, str]]:
        """Without obstacles of a type, and what was done to each; as it was if it cannot run."""
        before = trace.model.clone()
        done = lower(trace, [node for node in passes.obstacles if node.op_type == kind])
        if not done:
            return trace, {}
        try:
            return self._run(trace.model, feeds), done
        except ModelError as error:
            log.warning("%s stays as it is: rewritten, the network does not run: %s", kind, error)
            return self._run(before, feeds), {}

    def forward(self, mode: Mode, feeds: Mapping[str, Array]) -> Forward:
        """Run the network once, keeping what the reverse pass of this mode needs.

        Raises:
            NotBatchableError: `mode` is "squares" and a weight needs a batch of one.
            ModelError: an output has another shape than for other inputs of this one.
        """
        key = (mode, signature(feeds))
        if key not in self._specialised:
            trace = self.trace(feeds)
            passes = self._reverse_pass(trace, mode, feeds)
            self._specialised[key] = self._specialise(trace, passes)
        pair = self._specialised[key]
        feeds = {name: np.ascontiguousarray(feed) for name, feed in feeds.items()}
        values = pair.forward.run_values(feeds)
        sources = {name: values[name].numpy() for name in self._sources}
        for name, shape in pair.sources.items():
            check_same_shape(name, shape, sources[name].shape)
        return Forward(
            sources,
            key,
            {f"tap:{v.name}": values[str(v.name)] for v in pair.passes.taps},
            feeds,
        )

    def backward(self, forward: Forward, seeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the reverse pass: cotangents by source name → an array per weight, to be read."""
        pair = self._specialised[forward.key]
        cotangents: dict[str, Array] = {
            f"seed:{k}": np.asarray(v, self._dtype) for k, v in seeds.items()
        }
        values = pair.backward.run_values({**forward.taps, **cotangents})
        found = {name: view(value) for name, value in values.items()}
        return {
            name: tables.put_together(found, name, pair.tables[name])
            if name in pair.tables
            else found[f"grad:{name}"]
            for name in pair.passes.targets
        }

    def release(self) -> None:
        """Drop all sessions and traces."""
        self._traces.clear()
        self._blocked.clear()
        self._rewritten.clear()
        self._specialised.clear()

    def _reverse_pass(self, trace: Trace, mode: Mode, feeds: Mapping[str, Array]) -> ReversePass:
        samples = next((len(feed) for feed in feeds.values() if feed.ndim), 1)
        sources = [trace.value(name) for name in self._sources]
        targets = [trace.value(name) for name in self._targets]
        return reverse_pass(
            trace, sources, targets, mode, samples=samples, axes=self._axes, dtype=self._dtype
        )

    def _specialise(self, trace: Trace, passes: ReversePass) -> _Specialised:
        outputs = list(dict.fromkeys((*passes.seeds, *passes.taps)))
        forward = with_outputs(trace.model, outputs)
        shapes = {name: trace.shapes[trace.value(name)] for name in self._targets}
        taken = tables.take_out(passes.model, shapes)
        log.debug(
            "reverse pass with %d operators, %d taps", len(passes.model.graph), len(passes.taps)
        )
        return _Specialised(
            passes,
            Session(forward, base=self._base, runtime=self._runtime, lent=lend(forward)),
            Session(passes.model, runtime=self._runtime, lent=lend(passes.model)),
            {name: shapes[name] for name in taken},
            {str(value.name): trace.shapes[value] for value in passes.seeds},
        )


def reference_squares(
    gradients: Gradients, forward: Forward, seeds: Mapping[str, Array]
) -> dict[str, Array]:
    """Σ_n of squared per-sample gradients by ordinary reverse mode, one sample at a time.

    All samples went through the network together (mode "squared gradient"); each reverse pass has
    the cotangents of one of them. Exact whenever the rules are, also for batches of a fixed size.
    """
    total: dict[str, Array] = {}
    for squares in _one_at_a_time(gradients, forward, seeds):
        for name, square in squares.items():
            total[name] = total[name] + square if name in total else square
    return total


def _one_at_a_time(
    gradients: Gradients, forward: Forward, seeds: Mapping[str, Array]
) -> Iterator[dict[str, Array]]:
    for n in range(len(next(iter(seeds.values())))):
        one = {name: only(seed, n) for name, seed in seeds.items()}
        if any(seed.any() for seed in one.values()):
            yield gradients.backward(forward, one)


def batched_squares(
    gradients: Gradients, forward: Forward, seeds: Mapping[str, Array]
) -> dict[str, Array]:
    """The same by one batched pass (after a forward pass of mode "squares")."""
    return gradients.backward(forward, seeds)


def why_not_batched(
    gradients: Gradients, feeds: Mapping[str, Array], seeds: Mapping[str, Array]
) -> str:
    """Check the batched path against the reference on the given samples.

    Returns: why it must not be used, empty if the two agree.
    """
    try:
        batched = batched_squares(gradients, gradients.forward("squares", feeds), seeds)
    except NotBatchableError as reason:
        return str(reason)
    except ModelError as error:
        return f"the batched pass does not run ({str(error)[:100]})"
    forward = gradients.forward("squared gradient", feeds)
    rest, scales = _some(batched), dict.fromkeys(batched, 0.0)
    del batched
    for squares in map(_some, _one_at_a_time(gradients, forward, seeds)):
        for name, square in squares.items():
            rest[name] -= square
            scales[name] += float(square.sum(dtype=np.float64))
    for name, scale in scales.items():
        difference = float(np.abs(rest[name]).sum(dtype=np.float64))
        if not difference <= AGREEMENT * scale + np.finfo(np.float32).tiny:
            return f"{name}: off by {difference / max(scale, 1e-38):.1e} from one at a time"
    return ""


def _some(squares: dict[str, Array]) -> dict[str, Array]:
    """Of large arrays every so manieth entry: copies, so that the whole is not kept."""
    flat = {name: square.reshape(-1) for name, square in squares.items()}
    return {name: array[:: array.size // COMPARED | 1].copy() for name, array in flat.items()}


def only(seed: Array, sample: int) -> Array:
    """Cotangents that are zero for all samples but one."""
    masked = np.zeros_like(seed)
    masked[sample] = seed[sample]
    return masked
