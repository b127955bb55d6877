"""What rules and decompositions write with: ONNX operators for the shapes of one trace."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.autodiff.trace import Trace

Array = NDArray[Any]
Operand = ir.Value | Array | float | int | None


class Builder(ABC):
    """Appends operators to a graph, and knows the shapes and constants of the network.

    Attributes:
        trace: shapes, types and constants of the network.
        dtype: of Python floats among the operands.
    """

    def __init__(self, trace: Trace, graph: ir.Graph, dtype: np.dtype[Any], prefix: str) -> None:
        self.trace = trace
        self.dtype = dtype
        self._graph = graph
        self._prefix = prefix
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], ir.Value] = {}
        self._names = 0

    @abstractmethod
    def _append(self, node: ir.Node) -> None:
        """Take a new operator."""

    # What is known of the network

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Concrete shape of a value of the network."""
        return self.trace.shapes[value]

    def rank(self, value: ir.Value) -> int:
        """Number of axes of a value of the network."""
        return len(self.trace.shapes[value])

    def is_float(self, value: ir.Value) -> bool:
        """Whether a value of the network can have a derivative."""
        return self.trace.is_float(value)

    def constant(self, value: ir.Value | None) -> Array | None:
        """The content of a value that is the same for all inputs of these shapes, else None."""
        if value is None:
            return None
        if value.const_value is not None and value.is_initializer():
            return np.asarray(value.const_value.numpy())
        return self.trace.fixed.get(value)

    # Operators

    def const(self, array: Array | np.generic | Sequence[int] | float) -> ir.Value:
        """A constant; equal small constants are shared. Python floats become `dtype`."""
        if isinstance(array, float):
            array = np.asarray(array, self.dtype)
        array = np.asarray(array)
        key = (array.tobytes() if array.size <= 64 else b"", array.dtype.str, array.shape)
        if array.size <= 64 and key in self._constants:
            return self._constants[key]
        tensor = ir.Tensor(array) if array.dtype.kind in "biuf" else ir.tensor(array)
        value = ir.Value(name=self._name("c"), const_value=tensor)
        self._graph.register_initializer(value)
        if array.size <= 64:
            self._constants[key] = value
        return value

    @overload
    def op(
        self,
        op_type: str,
        *inputs: Operand,
        outputs: Literal[1] = 1,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value: ...
    @overload
    def op(
        self, op_type: str, *inputs: Operand, outputs: int, domain: str = "", **attributes: Any
    ) -> tuple[ir.Value, ...]: ...
    def op(
        self, op_type: str, *inputs: Operand, outputs: int = 1, domain: str = "", **attributes: Any
    ) -> ir.Value | tuple[ir.Value, ...]:
        """Append an operator. Arrays and numbers among the inputs become constants."""
        operands = [x if x is None or isinstance(x, ir.Value) else self.const(x) for x in inputs]
        made = [ir.Value(name=self._name("v")) for _ in range(outputs)]
        present = [_attribute(name, v) for name, v in attributes.items() if v is not None]
        self._append(ir.Node(domain, op_type, operands, present, outputs=made))
        return made[0] if outputs == 1 else tuple(made)

    def mask(self, condition: ir.Value) -> ir.Value:
        """A condition as numbers, 1 where it holds."""
        return self.op("Cast", condition, to=int(ir.DataType.from_numpy(self.dtype)))

    def ints(self, numbers: Sequence[int]) -> ir.Value:
        """A 1-D int64 constant, as shapes, axes and pads are given."""
        return self.const(np.asarray(numbers, np.int64).reshape(-1))

    def reshape(self, x: ir.Value, shape: Sequence[int]) -> ir.Value:
        """`x` with another shape; sizes are literal (0 means an empty axis)."""
        return self.op("Reshape", x, self.ints(shape), allowzero=1 if 0 in shape else None)

    def transpose(self, x: ir.Value, permutation: Sequence[int]) -> ir.Value:
        """`x` with its axes permuted."""
        if list(permutation) == list(range(len(permutation))):
            return x
        return self.op("Transpose", x, perm=list(permutation))

    def slice(self, x: ir.Value, axis: int, start: int, stop: int) -> ir.Value:
        """Entries `start` to `stop` along one axis."""
        return self.op("Slice", x, self.ints([start]), self.ints([stop]), self.ints([axis]))

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{self._prefix}{kind}{self._names}"


def _attribute(name: str, value: Any) -> ir.Attr:
    """What `onnx_ir` makes of it; that takes half the time of building a graph."""
    if isinstance(value, int):
        return ir.AttrInt64(name, value)
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, (list, tuple)) and value and all(type(v) is int for v in value):
        return ir.AttrInt64s(name, value)
    return ir.convenience.convert_attribute(name, value)
