"""The reverse pass under construction: a small builder that rules write ONNX operators with."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.autodiff.trace import Trace

Array = NDArray[Any]
Operand = ir.Value | Array | float | int | None
Step = Callable[[Sequence[ir.Value], Sequence[ir.Value]], tuple[list[ir.Value], list[ir.Value]]]
"""A step of a `Tape.scan`: (states, entries at this time) → (new states, what is collected)."""

OPSET = 21
"""Of the reverse pass; the network's own opset does not matter to it."""


class Tape:
    """Builds the graph of the reverse pass for the shapes of one trace.

    Values of the network come in as `primal`: weights and other constants as constants, all others
    as inputs that the forward pass has to deliver (`taps`). Floating-point values are `dtype`
    throughout, whatever the network's own precision is.

    Attributes:
        trace: shapes, types and constants of the network.
        samples: length of the sample axis (axis 0 of activations).
        dtype: of every floating-point value in the reverse pass.
        taps: values of the network that the reverse pass reads.
    """

    def __init__(self, trace: Trace, samples: int = 1, dtype: type = np.float32) -> None:
        self.trace = trace
        self.samples = samples
        self.dtype = np.dtype(dtype)
        self.taps: dict[ir.Value, ir.Value] = {}
        self._graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="reverse")
        self._nodes = self._graph  # where operators are appended: in a scan, to its body
        self._primals: dict[ir.Value, ir.Value] = {}
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], ir.Value] = {}
        self._names = 0

    # What is known of the network

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Concrete shape of a value of the network."""
        return self.trace.shapes[value]

    def rank(self, value: ir.Value) -> int:
        """Number of axes of a value of the network."""
        return len(self.trace.shapes[value])

    def is_float(self, value: ir.Value) -> bool:
        """Whether a value of the network can have a derivative."""
        dtype = self.trace.dtypes.get(value)
        return dtype is not None and (dtype.kind == "f" or dtype.name == "bfloat16")

    def constant(self, value: ir.Value | None) -> Array | None:
        """The content of a value that is the same for all inputs of these shapes, else None."""
        if value is None:
            return None
        if value.const_value is not None and value.is_initializer():
            return np.asarray(value.const_value.numpy())
        return self.trace.fixed.get(value)

    # What rules build with

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

    def const(self, array: Array | np.generic | Sequence[int] | float) -> ir.Value:
        """A constant; equal small constants are shared. Python floats become `dtype`."""
        if isinstance(array, float):
            array = np.asarray(array, self.dtype)
        array = np.asarray(array)
        key = (array.tobytes() if array.size <= 64 else b"", array.dtype.str, array.shape)
        if array.size <= 64 and key in self._constants:
            return self._constants[key]
        value = ir.Value(name=self._name("c"), const_value=ir.tensor(array))
        self._graph.register_initializer(value)
        if array.size <= 64:
            self._constants[key] = value
        return value

    @overload
    def op(
        self, op_type: str, *inputs: Operand, outputs: Literal[1] = 1, **attributes: Any
    ) -> ir.Value: ...
    @overload
    def op(
        self, op_type: str, *inputs: Operand, outputs: int, **attributes: Any
    ) -> tuple[ir.Value, ...]: ...
    def op(
        self, op_type: str, *inputs: Operand, outputs: int = 1, **attributes: Any
    ) -> ir.Value | tuple[ir.Value, ...]:
        """Append an operator. Arrays and numbers among the inputs become constants."""
        operands = [x if x is None or isinstance(x, ir.Value) else self.const(x) for x in inputs]
        made = [ir.Value(name=self._name("v")) for _ in range(outputs)]
        present = {name: value for name, value in attributes.items() if value is not None}
        self._nodes.append(ir.node(op_type, operands, present, outputs=made))
        return made[0] if outputs == 1 else tuple(made)

    def mask(self, condition: ir.Value) -> ir.Value:
        """A condition as numbers, 1 where it holds."""
        return self.op("Cast", condition, to=int(ir.DataType.from_numpy(self.dtype)))

    def ints(self, numbers: Sequence[int]) -> ir.Value:
        """A 1-D int64 constant, as shapes, axes and pads are given."""
        return self.const(np.asarray(numbers, np.int64).reshape(-1))

    def zeros(self, shape: Sequence[int]) -> ir.Value:
        """Zeros, made at run time."""
        return self.op("Expand", 0.0, self.ints(shape))

    def reshape(self, x: ir.Value, shape: Sequence[int]) -> ir.Value:
        """`x` with another shape; sizes are literal (0 means an empty axis)."""
        return self.op("Reshape", x, self.ints(shape), allowzero=int(0 in shape))

    def transpose(self, x: ir.Value, permutation: Sequence[int]) -> ir.Value:
        """`x` with its axes permuted."""
        if list(permutation) == list(range(len(permutation))):
            return x
        return self.op("Transpose", x, perm=list(permutation))

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
            return self.const(array.astype(self.dtype) if self.is_float(value) else array)
        dtype = self.trace.dtypes[value]
        tap = self.input(f"tap:{value.name}", dtype, self.shape(value))
        self.taps[value] = tap
        if self.is_float(value) and dtype != self.dtype:
            return self.op("Cast", tap, to=int(ir.DataType.from_numpy(self.dtype)))
        return tap

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"
