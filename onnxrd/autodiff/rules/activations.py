"""Elementwise functions of one input: a table of local derivatives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_float, get_string
from onnxrd.autodiff.registry import REVERSE, Cotangents, NoRuleError, Rule, reverse
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.terms import Term


@dataclass(frozen=True)
class At:
    """Where a function is differentiated: its input, its output, its attributes."""

    tape: Tape
    node: ir.Node

    @property
    def x(self) -> Term:
        """The input."""
        value = self.node.inputs[0]
        assert value is not None
        return Term(self.tape, self.tape.primal(value))

    @property
    def y(self) -> Term:
        """The output."""
        return Term(self.tape, self.tape.primal(self.node.outputs[0]))

    def get(self, name: str, default: float) -> float:
        """An attribute."""
        return get_float(self.node, name, default)


def _switch(condition: Term, chosen: Term | float, other: float) -> Term:
    """`chosen` where the mask is 1, else `other`."""
    return condition * (chosen - other) + other


def _hard_sigmoid(at: At) -> Term:
    y, alpha = at.y, at.get("alpha", 0.2)
    return (y > 0) * (y < 1) * alpha


def _hard_swish(at: At) -> Term:
    """y = x · clip(x/6 + ½, 0, 1)."""
    x = at.x
    gate = x.op("HardSigmoid", alpha=1 / 6, beta=0.5)
    return gate + (x.op("Abs") < 3) * x * (1 / 6)


def _selu(at: At) -> Term:
    """γ above zero, below γ α eˣ = y + γ α."""
    gamma = at.get("gamma", 1.05070102214813232421875)
    alpha = at.get("alpha", 1.67326319217681884765625)
    return _switch(at.x < 0, at.y + gamma * alpha, gamma)


def _swish(at: At) -> Term:
    """y = x σ(αx)."""
    alpha = at.get("alpha", 1.0 if at.node.op_type == "Swish" else 1.702)
    gate = (at.x * alpha).op("Sigmoid")
    return gate + at.y * alpha * (1 - gate)


def _mish(at: At) -> Term:
    """y = x tanh(softplus(x))."""
    x = at.x
    gate = x.op("Softplus").op("Tanh")
    return gate + x * (1 - gate * gate) * x.op("Sigmoid")


def _softsign(at: At) -> Term:
    inverse = 1 / (at.x.op("Abs") + 1)
    return inverse * inverse


def _erf(at: At) -> Term:
    return (-(at.x * at.x)).op("Exp") * (2 / sqrt(pi))


def _gelu(at: At) -> Term:
    """y = x Φ(x), or its approximation by tanh."""
    x = at.x
    square = x * x
    if at.node.op_type == "FastGelu" or get_string(at.node, "approximate", "none") == "tanh":
        return _gelu_tanh(x, square)
    density = (square * -0.5).op("Exp") * (1 / sqrt(2 * pi))
    return ((x * sqrt(0.5)).op("Erf") + 1) * 0.5 + x * density


def _gelu_tanh(x: Term, square: Term) -> Term:
    """y = ½ x (1 + tanh u), u = √(2/π) (x + 0.044715 x³)."""
    c, k = sqrt(2 / pi), 0.044715
    gate = (x * (square * (c * k) + c)).op("Tanh")
    inner = x * (square * (3 * c * k) + c)
    return (gate + 1 + (1 - gate * gate) * inner) * 0.5


DERIVATIVES: dict[str, Callable[[At], Term]] = {
    # piecewise linear
    "Relu": lambda at: at.y > 0,
    "LeakyRelu": lambda at: _switch(at.x > 0, 1.0, at.get("alpha", 0.01)),
    "ThresholdedRelu": lambda at: at.x > at.get("alpha", 1.0),
    "Abs": lambda at: at.x.op("Sign"),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Shrink": lambda at: at.x.op("Abs") > at.get("lambd", 0.5),
    # smooth
    "Sigmoid": lambda at: at.y * (1 - at.y),
    "Tanh": lambda at: 1 - at.y * at.y,
    "Softplus": lambda at: at.x.op("Sigmoid"),
    "Softsign": _softsign,
    "Elu": lambda at: _switch(at.x < 0, at.y + at.get("alpha", 1.0), 1.0),
    "Celu": lambda at: _switch(at.x < 0, at.y * (1 / at.get("alpha", 1.0)) + 1, 1.0),
    "Selu": _selu,
    "Swish": _swish,
    "Mish": _mish,
    "Gelu": _gelu,
    "Erf": _erf,
    "Exp": lambda at: at.y,
    "Log": lambda at: 1 / at.x,
    "Sqrt": lambda at: 0.5 / at.y,
    "Reciprocal": lambda at: -(at.y * at.y),
    # trigonometric and hyperbolic
    "Sin": lambda at: at.x.op("Cos"),
    "Cos": lambda at: -at.x.op("Sin"),
    "Tan": lambda at: at.y * at.y + 1,
    "Asin": lambda at: 1 / (1 - at.x * at.x).op("Sqrt"),
    "Acos": lambda at: -1 / (1 - at.x * at.x).op("Sqrt"),
    "Atan": lambda at: 1 / (at.x * at.x + 1),
    "Sinh": lambda at: (at.y * at.y + 1).op("Sqrt"),
    "Cosh": lambda at: at.x.op("Sign") * (at.y * at.y - 1).op("Sqrt"),
    "Asinh": lambda at: 1 / (at.x * at.x + 1).op("Sqrt"),
    "Acosh": lambda at: 1 / (at.x * at.x - 1).op("Sqrt"),
    "Atanh": lambda at: 1 / (1 - at.x * at.x),
}
"""Operator → dy/dx, in the shape of x."""

FUSED = {"Gelu": _gelu, "FastGelu": _gelu, "QuickGelu": _swish}
"""The same for onnxruntime's own operators."""


def _rule(derivative: Callable[[At], Term]) -> Rule:
    def rule(
        t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
    ) -> Cotangents:
        (dy,) = dys
        assert dy is not None
        if len([value for value in node.inputs if value is not None]) > 1:
            raise NoRuleError("a second input")
        return {0: (Term(t, dy) * derivative(At(t, node))).value}

    return rule


REVERSE.update({("", operator): _rule(d) for operator, d in DERIVATIVES.items()})
REVERSE.update({("com.microsoft", operator): _rule(d) for operator, d in FUSED.items()})


@reverse("Identity", "Cast", "CastLike")
def _identity(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    assert dys[0] is not None
    return {0: dys[0]} if 0 in wanted else {}


@reverse("Neg")
def _neg(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    return {0: t.op("Neg", dys[0])}


@reverse("Dropout")
def _dropout(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """At inference the identity."""
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    training = t.constant(mode) if mode is not None else np.zeros(())
    if dys[0] is None or training is None or training.any():
        raise NoRuleError("training mode")
    return {0: dys[0]}
