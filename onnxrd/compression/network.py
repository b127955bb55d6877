"""A network with what its compression needs at hand: layers in order, stages, data."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.calibration import Batch, Calibration
from onnxrd.distortion import Head, Tasks, find_heads
from onnxrd.graph.halves import rounded
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime
from onnxrd.graph.stages import Stage, Walk, cut, reads
from onnxrd.graph.weights import Weight
from onnxrd.importance.linear_form import LinearForm, linear_form
from onnxrd.quantizers.feedback import SecondMoment

Array = NDArray[Any]

LARGEST_BATCH = 32
MOST_SAMPLES = 1024
POSITIONS = range(1024, 8193)
"""Positions of a layer that its moments are taken over: 32 for each of its inputs, within these
bounds, but 8 at least."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight and the layer that it is the matrix of.

    Attributes:
        number: among the layers.
        weight: the tensor.
        form: how it multiplies the layer's inputs.
    """

    number: int
    weight: Weight
    form: LinearForm

    @property
    def columns(self) -> int:
        """Of its matrices."""
        return int(self.form.index.shape[2])

    @property
    def most_positions(self) -> int:
        """How many positions its moments are taken over."""
        return max(min(max(32 * self.columns, POSITIONS[0]), POSITIONS[-1]), 8 * self.columns)


@dataclass(frozen=True, eq=False)
class RowSets:
    """Rows of an embedding in sets that matter differently, each to be quantized on its own.

    Attributes:
        rows: [S] of [rows], all rows of the weight.
        importance: [S], of the mean weight of a set.
        unmoved: how many sets come first that, one behind the other, are in the weight's order.
    """

    rows: Sequence[NDArray[np.int64]]
    importance: NDArray[np.float64]
    unmoved: int

    @property
    def moved(self) -> NDArray[np.int64]:
        """The rows of the other sets."""
        return np.concatenate(self.rows[self.unmoved :])

    def names(self, weight: str) -> list[str]:
        """What the sets are called."""
        return [f"{weight}[{number}]" for number in range(len(self.rows))]


class Network:
    """A model cut into stages, with the samples that it is fitted on.

    Args:
        model: the original.
        prepared: its prepared graph, which the weights belong to.
        weights: those to compress.
        data: the samples.
        task: overrides what the graph's end says.
        runtime: threads and provider.

    Attributes:
        layers: weights that have a linear form and are used in the main graph, where their inputs
            can be had, and if by several operators then all of them in one wave.
        loose: the other weights.
        row_sets: of the loose weights whose rows matter differently, by name.
        waves: layers by depth: the inputs of a wave depend on earlier waves only.
        directions: which directions of the layers' outputs matter, by number of the layer; None
            while that has not been looked into.
        heads: what is compared at the outputs.
        data: the samples in use, few enough to be walked side by side.
        halves: names of constants that the file holds in half precision; no weights.
        fixed: names of biases that must stay as they are.
    """

    def __init__(
        self,
        model: Model,
        prepared: ir.Model,
        weights: Sequence[Weight],
        data: Calibration,
        task: Tasks = None,
        runtime: Runtime = DEFAULT,
    ) -> None:
        self.model, self.prepared, self.weights, self.runtime = model, prepared, weights, runtime
        self.heads: Sequence[Head] = find_heads(prepared, task, sample_axis=data.sample_axis)
        main = [w for w in weights if all(self.is_main(use.node) for use in w.uses)]
        self.layers, self.waves = _layers(prepared.graph, main)
        inside = {layer.weight for layer in self.layers}
        self.loose = [w for w in weights if w not in inside]
        self.row_sets: dict[str, RowSets] = {}
        self.directions: Mapping[int, SecondMoment] | None = None
        self.data = data
        self.halves: Collection[str] = ()
        self.fixed: Collection[str] = ()

    @property
    def base(self) -> Any:
        """Folder of the model's external data."""
        return self.model.path.parent

    def is_main(self, node: ir.Node) -> bool:
        """Whether a node lies in no body of an If, a Loop or a Scan."""
        return node.graph is self.prepared.graph

    @cached_property
    def stages(self) -> list[Stage]:
        """One for each wave, which delivers the inputs of its layers, and one for the outputs."""
        taps = [
            list(dict.fromkeys(place.tap for layer in wave for place in layer.form.places))
            for wave in self.waves
        ]
        return cut(self.prepared, [*taps, [str(head.output) for head in self.heads]])

    @property
    def batches(self) -> list[dict[str, Array]]:
        """The feeds of the samples, in two batches at least where there are as many samples."""
        return [batch.feeds for batch in self._batches]

    @property
    def samples(self) -> list[int]:
        """How many there are in each batch."""
        return [batch.size for batch in self._batches]

    @cached_property
    def _batches(self) -> list[Batch]:
        return list(self.data.batches(min(LARGEST_BATCH, -(-self.data.samples // 2))))

    def walk(self) -> Walk:
        """A new walk from the beginning."""
        return Walk(self.stages, self.base, self.batches, self.runtime)

    def columns(self, layer: Layer, taps: Sequence[Mapping[str, Array]]) -> list[Array]:
        """Inputs of a layer at random positions, the same ones each time: [G, P, K] a batch."""
        places = layer.form.places
        most = -(-layer.most_positions // (len(taps) * len(places)))
        found = []
        for number, values in enumerate(taps):
            rng = np.random.default_rng([layer.number, number])
            inputs = [p.columns(np.asarray(values[p.tap], np.float32), rng, most) for p in places]
            found.append(np.concatenate(inputs, axis=1) if len(inputs) > 1 else inputs[0])
        return found

    def held(self, name: str, array: Array, step: float) -> Array:
        """What the file holds of a constant: multiples of a step, a power of two, as halves can."""
        if name not in self.halves:
            return array
        return rounded(np.rint(array.astype(np.float64) / step) * step if step else array)

    def constant(self, name: str) -> Array:
        """What an initializer of the prepared graph holds."""
        value = self.prepared.graph.initializers[name].const_value
        assert value is not None
        return np.asarray(value.numpy())


def _layers(graph: ir.Graph, weights: Sequence[Weight]) -> tuple[list[Layer], list[list[Layer]]]:
    """The layers that weights are the matrices of, and in waves.

    A weight that lies in several layers, one behind another, is none: its inputs change with it.
    """
    forms = {w: form for w in weights if (form := linear_form(w)) is not None}
    while True:
        layers = [Layer(number, w, form) for number, (w, form) in enumerate(forms.items())]
        depths = _depths(graph, layers)
        uneven = [layer.weight for layer in layers if len(depths[layer]) > 1]
        if not uneven:
            break
        for weight in uneven:
            del forms[weight]
    waves: dict[int, list[Layer]] = {}
    for layer, (depth,) in depths.items():
        waves.setdefault(depth, []).append(layer)
    return layers, [waves[depth] for depth in sorted(waves)]


def _depths(graph: ir.Graph, layers: Sequence[Layer]) -> dict[Layer, set[int]]:
    """How many layers lie before each one on the longest path, wherever it is used."""
    at: dict[ir.Node, list[Layer]] = {}
    for layer in layers:
        for use in layer.weight.uses:
            at.setdefault(use.node, []).append(layer)
    depth: dict[ir.Value, int] = {}
    depths: dict[Layer, set[int]] = {}
    for node in graph:
        here = max((depth.get(value, 0) for value in reads(node)), default=0)
        for layer in at.get(node, []):
            depths.setdefault(layer, set()).add(here)
        here += node in at
        depth.update(dict.fromkeys(node.outputs, here))
    return depths
