"""Formulas over values of the reverse pass: `y * (1 - y)` appends Sub and Mul to the tape."""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxrd.autodiff.tape import Operand, Tape


class Term:
    """A value of the reverse pass with the arithmetic of ONNX operators.

    Comparisons give masks: 1 where they hold, else 0. (Multiplying by a mask is several times
    faster in onnxruntime than Where.)

    Args:
        tape: that operators are appended to.
        value: made on that tape.
    """

    __slots__ = ("tape", "value")

    def __init__(self, tape: Tape, value: ir.Value) -> None:
        self.tape = tape
        self.value = value

    def op(self, op_type: str, *others: "Term | Operand", **attributes: Any) -> "Term":
        """An operator of one output, applied to this and maybe other operands."""
        operands = [o.value if isinstance(o, Term) else o for o in others]
        return Term(self.tape, self.tape.op(op_type, self.value, *operands, **attributes))

    def __add__(self, other: "Term | float") -> "Term":
        return self.op("Add", _number(other))

    def __sub__(self, other: "Term | float") -> "Term":
        return self.op("Sub", _number(other))

    def __rsub__(self, other: float) -> "Term":
        return Term(self.tape, self.tape.op("Sub", float(other), self.value))

    def __mul__(self, other: "Term | float") -> "Term":
        return self.op("Mul", _number(other))

    def __truediv__(self, other: "Term | float") -> "Term":
        return self.op("Div", _number(other))

    def __rtruediv__(self, other: float) -> "Term":
        if other == 1:
            return self.op("Reciprocal")
        return Term(self.tape, self.tape.op("Div", float(other), self.value))

    def __neg__(self) -> "Term":
        return self.op("Neg")

    def __lt__(self, other: "Term | float") -> "Term":
        return self._mask("Less", other)

    def __gt__(self, other: "Term | float") -> "Term":
        return self._mask("Greater", other)

    def equals(self, other: "Term | float") -> "Term":
        """1 where the two are equal, else 0."""
        return self._mask("Equal", other)

    def sum(self, axes: Sequence[int]) -> "Term":
        """Summed over some axes, which stay as axes of length 1."""
        return Term(self.tape, self.tape.sum(self.value, axes, keepdims=True))

    def mean(self, axes: Sequence[int]) -> "Term":
        """Averaged over some axes, which stay as axes of length 1."""
        return self.op("ReduceMean", self.tape.ints(axes)) if axes else self

    def reshape(self, shape: Sequence[int]) -> "Term":
        """With another shape; sizes are literal."""
        return Term(self.tape, self.tape.reshape(self.value, shape))

    __radd__ = __add__
    __rmul__ = __mul__

    def _mask(self, comparison: str, other: "Term | float") -> "Term":
        return Term(self.tape, self.tape.mask(self.op(comparison, _number(other)).value))


def _number(x: "Term | float") -> "Term | float":
    return x if isinstance(x, Term) else float(x)
