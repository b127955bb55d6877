"""The reverse pass under construction."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.builder import Array, Builder, Operand
from onnxrd.autodiff.trace import Trace

__all__ = ["OPSET", "Array", "Operand", "Step", "Tape"]

Step = Callable[[Sequence[ir.Value], Sequence[ir.Value]], tuple[list[ir.Value], list[ir.Value]]]
"""A step of a `Tape.scan`: (states, entries at this time) → (new states, what is collected)."""

OPSET = 21
"""Of the reverse pass; the network's own opset does not matter to it."""


class Tape(Builder):
    """Builds the graph of the reverse pass.

    Values of the network come in as `primal`: weights and other constants as constants, all others
    as inputs that the forward pass has to deliver (`taps`). Floating-point values are `dtype`
    throughout, whatever the network's own precision is.

    Attributes:
        samples: length of the sample axis (axis 0 of activations).
        taps: values of the network that the reverse pass reads.
    """

    def __init__(self, trace: Trace, samples: int = 1, dtype: type = np.float32) -> None:
        graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="reverse")
        super().__init__(trace, graph, np.dtype(dtype), "")
        self.samples = samples
        self.taps: dict[ir.Value, ir.Value] = {}
        self._nodes = graph  # where operators are appended: in a scan, to its body
        self._primals: dict[ir.Value, ir.Value] = {}

    def _append(self, node: ir.Node) -> None:
        self._nodes.append(node)

    def primal(self, value: ir.Value) -> ir.Value:
        """A value of the network, as the forward pass had it."""
        if value not in self._primals:
            self._primals[value] = self._import(value)
        return self._primals[value]

    def input(self, name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> ir.Value:
        """A new input of the reverse pass, such as a seed."""
        value = ir.val(name, ir.DataType.from_numpy(dtype), tuple(shape))
        self._graph.inputs.append(value)
        return value

    def zeros(self, shape: Sequence[int]) -> ir.Value:
        """Zeros, made at run time."""
        return self.op("Expand", 0.0, self.ints(shape))

    def sum(self, x: ir.Value, axes: Sequence[int], *, keepdims: bool = False) -> ir.Value:
        """`x` summed over some axes (none: `x` itself)."""
        if not axes:
            return x
        return self.op("ReduceSum", x, self.ints(axes), keepdims=int(keepdims))

    def total(self, x: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Σ over axis 0, [N, *rest] → [*rest]: a product with ones, thrice as fast as ReduceSum.

        Args:
            x: [*shape].
            shape: of x.
        """
        n, *rest = shape
        rows = self.reshape(x, (n, int(np.prod(rest))))
        return self.reshape(self.op("MatMul", np.ones((1, n), self.dtype), rows), rest)

    def unbroadcast(
        self, x: ir.Value, shape: Sequence[int], target: Sequence[int], *, batched: bool = False
    ) -> ir.Value:
        """Undo numpy broadcasting in a cotangent: sum over the axes that were stretched.

        Args:
            x: [*shape].
            shape: the broadcast shape.
            target: the shape before broadcasting.
            batched: axis 0 holds samples and is kept: the result is [N, *target].
        """
        lead = len(shape) - len(target)
        stretched = [
            axis
            for axis in range(len(shape))
            if axis < lead or (target[axis - lead] == 1 and shape[axis] != 1)
        ]
        if not batched:
            result = self.sum(x, stretched, keepdims=True)
            return result if tuple(shape) == tuple(target) else self.reshape(result, target)
        result = self.sum(x, [a for a in stretched if a != 0], keepdims=True)
        return self.reshape(result, (shape[0], *target))

    def scan(
        self,
        step: Step,
        states: Sequence[ir.Value],
        sequences: Sequence[ir.Value],
        *,
        backward: bool = False,
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """Run a step for every entry of the sequences' axis 0, by one Scan operator.

        Args:
            step: appends the step's operators; it may read values made before, but makes taps
                (`primal`) of none that has not been one.
            states: handed on from step to step.
            sequences: [T, …] each.
            backward: from the last entry to the first; what is collected lies in the order of the
                sequences all the same.

        Returns: the last states, and [T, …] of each value that the step collects.
        """
        body = ir.Graph([], [], nodes=[], name=self._name("body"))
        kind = ir.TensorType(ir.DataType.from_numpy(self.dtype))
        given = [ir.Value(name=self._name("v"), type=kind) for _ in (*states, *sequences)]
        body.inputs.extend(given)
        outside, self._nodes = self._nodes, body
        after, collected = step(given[: len(states)], given[len(states) :])
        body.outputs.extend(self.op("Identity", value) for value in (*after, *collected))
        self._nodes = outside
        for value in body.outputs:
            value.type = kind
        made = [ir.Value(name=self._name("v")) for _ in body.outputs]
        attributes: dict[str, Any] = {
            "body": body,
            "num_scan_inputs": len(sequences),
            "scan_input_directions": [int(backward)] * len(sequences),
            "scan_output_directions": [int(backward)] * len(collected),
        }
        self._nodes.append(ir.node("Scan", [*states, *sequences], attributes, outputs=made))
        return made[: len(states)], made[len(states) :]

    def model(self, outputs: Sequence[tuple[str, ir.Value]]) -> ir.Model:
        """Close the tape: the reverse pass as a model with the given named outputs."""
        for name, value in outputs:
            output = self.op("Identity", value)
            output.name = name
            output.type = ir.TensorType(ir.DataType.from_numpy(self.dtype))
            self._graph.outputs.append(output)
        return ir.Model(self._graph, ir_version=10)

    def _import(self, value: ir.Value) -> ir.Value:
        array = self.constant(value)
        if array is not None:
            if self.is_float(value):
                shared = isinstance(value.const_value, ir.Tensor)
                array = array.astype(self.dtype, copy=not shared)
            return self.const(array)
        dtype = self.trace.dtypes[value]
        tap = self.input(f"tap:{value.name}", dtype, self.shape(value))
        self.taps[value] = tap
        if self.is_float(value) and dtype != self.dtype:
            return self.op("Cast", tap, to=int(ir.DataType.from_numpy(self.dtype)))
        return tap
