"""What one run of the network showed: the concrete shape of every value, and the constant ones.

The reverse pass is built for the shapes at hand. That spares every rule the arithmetic of symbolic
shapes, and works where shape inference gives up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.autodiff.lending import lend
from onnxrd.graph.folding import independent
from onnxrd.graph.session import DEFAULT, Runtime, Session

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Trace:
    """Shapes, types and constants of a graph for one signature of inputs.

    Attributes:
        model: the prepared graph that was run.
        base: folder of its external data.
        shapes: of every tensor that was seen.
        dtypes: of the same.
        constants: values that no graph input has an influence on (initializers are not repeated).
        fixed: these, and values that inputs influence by their shapes alone, or that only depend on
            single integers and truth values among them, such as a sampling rate.
    """

    model: ir.Model
    base: Path
    shapes: Mapping[ir.Value, tuple[int, ...]]
    dtypes: Mapping[ir.Value, np.dtype[Any]]
    constants: Mapping[ir.Value, Array]
    fixed: Mapping[ir.Value, Array]

    def is_float(self, value: ir.Value) -> bool:
        """Whether a value can have a derivative."""
        dtype = self.dtypes.get(value)
        return dtype is not None and (dtype.kind == "f" or dtype.name == "bfloat16")

    def value(self, name: str) -> ir.Value:
        """The value of this name."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, ir.Value]:
        return {str(value.name): value for value in self.shapes}

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return self.model.opset_imports.get("", self.model.opset_imports.get("ai.onnx", 1))


def signature(feeds: Mapping[str, Array]) -> tuple[tuple[Any, ...], ...]:
    """What a trace depends on: the shapes of the inputs, and settings among them."""
    return tuple(
        (name, feed.shape, feed.item() if _is_setting(feed) else None)
        for name, feed in sorted(feeds.items())
    )


def _is_setting(feed: Array) -> bool:
    """A single integer or truth value without an axis for samples, such as a sampling rate."""
    return feed.ndim == 0 and feed.dtype.kind in "iub"


def run_trace(
    model: ir.Model, base: Path, feeds: Mapping[str, Array], *, runtime: Runtime = DEFAULT
) -> Trace:
    """Run the graph once with every value as an output and note what was seen.

    Raises:
        ModelError: onnxruntime cannot run the model on these inputs.
    """
    values = [v for node in model.graph for v in node.outputs if v.name]
    whole = with_outputs(model, values)
    lent = lend(whole)
    session = Session(whole, base=base, level="disable", runtime=runtime, lent=lent)
    chosen = {name for name, feed in feeds.items() if _is_setting(feed)}
    settings = {value for value in model.graph.inputs if value.name in chosen}
    same = independent(model.graph, shapes=False, given=settings)
    always = independent(model.graph, shapes=True)
    shapes: dict[ir.Value, tuple[int, ...]] = {}
    dtypes: dict[ir.Value, np.dtype[Any]] = {}
    fixed: dict[ir.Value, Array] = {}
    seen = session.run_values(feeds)
    for value in values:
        result = seen.pop(str(value.name))
        if not result.is_tensor() or result.data_type() == "tensor(string)":
            continue
        shapes[value] = tuple(result.shape())
        dtypes[value] = ir.DataType(result.element_type()).numpy()
        if value in same:
            fixed[value] = result.numpy()
    for value in model.graph.inputs:
        if (feed := feeds.get(str(value.name))) is not None:
            shapes[value], dtypes[value] = feed.shape, feed.dtype
            if value in settings:
                fixed[value] = feed
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            shapes[value] = tuple(value.const_value.shape.numpy())
            dtypes[value] = value.const_value.dtype.numpy()
    constants = {value: array for value, array in fixed.items() if value in always}
    return Trace(model, base, shapes, dtypes, constants, fixed)


def with_outputs(model: ir.Model, values: list[ir.Value]) -> ir.Model:
    """A copy of the model whose outputs are the given values of its main graph."""
    copy = model.clone()
    names = {v.name for v in values}
    here = {v.name: v for node in copy.graph for v in node.outputs if v.name in names}
    here |= {v.name: v for v in copy.graph.inputs if v.name in names}
    copy.graph.outputs.clear()
    for value in values:
        output = here[value.name]
        copy.graph.outputs.append(output)
    return copy
