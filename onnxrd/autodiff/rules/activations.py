"""Elementwise functions of one input: the cotangent times a local derivative."""

from collections.abc import Callable, Sequence
from math import pi, sqrt

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_float, get_string
from onnxrd.autodiff.registry import REVERSE, Cotangents, NoRuleError, reverse
from onnxrd.autodiff.tape import Tape

Derivative = Callable[[Tape, ir.Node], ir.Value]
"""(tape, node) → dy/dx, in the shape of x."""


def _derivative(*operators: str, domain: str = "") -> Callable[[Derivative], Derivative]:
    """Register operators by their local derivative."""

    def register(derivative: Derivative) -> Derivative:
        def rule(
            t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
        ) -> Cotangents:
            if wanted != {0} or dys[0] is None:
                raise NoRuleError("a gradient of other than the first input")
            return {0: t.op("Mul", dys[0], derivative(t, node))}

        REVERSE.update({(domain, operator): rule for operator in operators})
        return derivative

    return register


def _x(t: Tape, node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return t.primal(value)


def _y(t: Tape, node: ir.Node) -> ir.Value:
    return t.primal(node.outputs[0])


def _choose(t: Tape, where: ir.Value, chosen: ir.Value | float, other: float) -> ir.Value:
    """`chosen` where the condition holds, else `other`: arithmetic, Where being slow."""
    mask = t.mask(where)
    return t.op("Add", t.op("Mul", mask, t.op("Sub", chosen, other)), other)


@reverse("Identity", "Cast")
def _identity(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    assert dys[0] is not None
    return {0: dys[0]}


@reverse("Dropout")
def _dropout(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """At inference the identity."""
    training = t.constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
    if dys[0] is None or training is None or training.any():
        raise NoRuleError("training mode")
    return {0: dys[0]}


@reverse("Neg")
def _neg(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    return {0: t.op("Neg", dys[0])}


# Piecewise linear


@_derivative("Relu")
def _relu(t: Tape, node: ir.Node) -> ir.Value:
    return t.op("Sign", _y(t, node))


@_derivative("Abs")
def _abs(t: Tape, node: ir.Node) -> ir.Value:
    return t.op("Sign", _x(t, node))


@_derivative("LeakyRelu")
def _leaky_relu(t: Tape, node: ir.Node) -> ir.Value:
    return _choose(t, t.op("Greater", _x(t, node), 0.0), 1.0, get_float(node, "alpha", 0.01))


@_derivative("ThresholdedRelu")
def _thresholded_relu(t: Tape, node: ir.Node) -> ir.Value:
    return t.mask(t.op("Greater", _x(t, node), get_float(node, "alpha", 1.0)))


@_derivative("Clip")
def _clip(t: Tape, node: ir.Node) -> ir.Value:
    """1 strictly between the bounds, which are attributes before opset 11 and inputs since."""
    x = _x(t, node)
    low: ir.Value | float | None = None
    high: ir.Value | float | None = None
    if "min" in node.attributes:
        low = get_float(node, "min", 0.0)
    elif len(node.inputs) > 1 and node.inputs[1] is not None:
        low = t.primal(node.inputs[1])
    if "max" in node.attributes:
        high = get_float(node, "max", 0.0)
    elif len(node.inputs) > 2 and node.inputs[2] is not None:
        high = t.primal(node.inputs[2])
    inside = [t.op("Greater", x, low)] if low is not None else []
    inside += [t.op("Less", x, high)] if high is not None else []
    if not inside:
        return t.op("Expand", 1.0, t.op("Shape", x))
    return t.mask(inside[0] if len(inside) == 1 else t.op("And", *inside))


@_derivative("HardSigmoid")
def _hard_sigmoid(t: Tape, node: ir.Node) -> ir.Value:
    y = _y(t, node)
    inside = t.op("And", t.op("Greater", y, 0.0), t.op("Less", y, 1.0))
    return t.op("Mul", t.mask(inside), get_float(node, "alpha", 0.2))


@_derivative("HardSwish")
def _hard_swish(t: Tape, node: ir.Node) -> ir.Value:
    """y = x · clip(x/6 + ½, 0, 1)."""
    x = _x(t, node)
    gate = t.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    inside = t.mask(t.op("Less", t.op("Abs", x), 3.0))
    return t.op("Add", gate, t.op("Mul", t.op("Mul", x, 1 / 6), inside))


# Smooth


@_derivative("Sigmoid")
def _sigmoid(t: Tape, node: ir.Node) -> ir.Value:
    y = _y(t, node)
    return t.op("Mul", y, t.op("Sub", 1.0, y))


@_derivative("Tanh")
def _tanh(t: Tape, node: ir.Node) -> ir.Value:
    y = _y(t, node)
    return t.op("Sub", 1.0, t.op("Mul", y, y))


@_derivative("Exp")
def _exp(t: Tape, node: ir.Node) -> ir.Value:
    return _y(t, node)


@_derivative("Log")
def _log(t: Tape, node: ir.Node) -> ir.Value:
    return t.op("Reciprocal", _x(t, node))


@_derivative("Sqrt")
def _sqrt(t: Tape, node: ir.Node) -> ir.Value:
    return t.op("Div", 0.5, _y(t, node))


@_derivative("Reciprocal")
def _reciprocal(t: Tape, node: ir.Node) -> ir.Value:
    y = _y(t, node)
    return t.op("Neg", t.op("Mul", y, y))


@_derivative("Sin")
def _sin(t: Tape, node: ir.Node) -> ir.Value:
    return t.op("Cos", _x(t, node))


@_derivative("Cos")
def _cos(t: Tape, node: ir.Node) -> ir.Value:
    return t.op("Neg", t.op("Sin", _x(t, node)))


@_derivative("Softplus")
def _softplus(t: Tape, node: ir.Node) -> ir.Value:
    return t.op("Sigmoid", _x(t, node))


@_derivative("Softsign")
def _softsign(t: Tape, node: ir.Node) -> ir.Value:
    inverse = t.op("Reciprocal", t.op("Add", t.op("Abs", _x(t, node)), 1.0))
    return t.op("Mul", inverse, inverse)


@_derivative("Elu")
def _elu(t: Tape, node: ir.Node) -> ir.Value:
    """α eˣ = y + α below zero."""
    below = t.op("Add", _y(t, node), get_float(node, "alpha", 1.0))
    return _choose(t, t.op("Less", _x(t, node), 0.0), below, 1.0)


@_derivative("Selu")
def _selu(t: Tape, node: ir.Node) -> ir.Value:
    gamma = get_float(node, "gamma", 1.05070102214813232421875)
    alpha = get_float(node, "alpha", 1.67326319217681884765625)
    below = t.op("Add", _y(t, node), gamma * alpha)
    return _choose(t, t.op("Less", _x(t, node), 0.0), below, gamma)


@_derivative("Celu")
def _celu(t: Tape, node: ir.Node) -> ir.Value:
    below = t.op("Add", t.op("Div", _y(t, node), get_float(node, "alpha", 1.0)), 1.0)
    return _choose(t, t.op("Less", _x(t, node), 0.0), below, 1.0)


@_derivative("Swish")
def _swish(t: Tape, node: ir.Node) -> ir.Value:
    """y = x σ(αx)."""
    alpha, x = get_float(node, "alpha", 1.0), _x(t, node)
    gate = t.op("Sigmoid", t.op("Mul", x, alpha))
    slope = t.op("Mul", t.op("Mul", _y(t, node), alpha), t.op("Sub", 1.0, gate))
    return t.op("Add", gate, slope)


@_derivative("Mish")
def _mish(t: Tape, node: ir.Node) -> ir.Value:
    """y = x tanh(softplus(x))."""
    x = _x(t, node)
    gate = t.op("Tanh", t.op("Softplus", x))
    slope = t.op("Mul", t.op("Sub", 1.0, t.op("Mul", gate, gate)), t.op("Sigmoid", x))
    return t.op("Add", gate, t.op("Mul", x, slope))


@_derivative("Erf")
def _erf(t: Tape, node: ir.Node) -> ir.Value:
    x = _x(t, node)
    return t.op("Mul", t.op("Exp", t.op("Neg", t.op("Mul", x, x))), 2 / sqrt(pi))


@_derivative("Gelu")
@_derivative("Gelu", domain="com.microsoft")
def _gelu(t: Tape, node: ir.Node) -> ir.Value:
    """y = x Φ(x), or its approximation by tanh."""
    x = _x(t, node)
    square = t.op("Mul", x, x)
    if get_string(node, "approximate", "none") == "tanh":
        return _gelu_tanh(t, x, square)
    normal = t.op("Mul", t.op("Exp", t.op("Mul", square, -0.5)), 1 / sqrt(2 * pi))
    cumulative = t.op("Mul", t.op("Add", t.op("Erf", t.op("Mul", x, sqrt(0.5))), 1.0), 0.5)
    return t.op("Add", cumulative, t.op("Mul", x, normal))


def _gelu_tanh(t: Tape, x: ir.Value, square: ir.Value) -> ir.Value:
    """y = ½ x (1 + tanh u), u = √(2/π) (x + 0.044715 x³)."""
    c, k = sqrt(2 / pi), 0.044715
    u = t.op("Mul", t.op("Mul", x, t.op("Add", t.op("Mul", square, k), 1.0)), c)
    gate = t.op("Tanh", u)
    inner = t.op("Mul", t.op("Add", t.op("Mul", square, 3 * k), 1.0), c)
    slope = t.op("Mul", t.op("Sub", 1.0, t.op("Mul", gate, gate)), t.op("Mul", x, inner))
    return t.op("Mul", t.op("Add", t.op("Add", gate, 1.0), slope), 0.5)
