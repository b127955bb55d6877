"""Elementwise operators: the cotangent times a local derivative, summed where broadcast."""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxrd.autodiff.attributes import get_float
from onnxrd.autodiff.registry import (
    PER_SAMPLE,
    REVERSE,
    Cotangents,
    reverse,
)
from onnxrd.autodiff.tape import Tape

Local = Callable[[Tape, ir.Node, ir.Value], ir.Value]


def _unary(*operators: str) -> Callable[[Local], Local]:
    """Register dx for operators with one input: (tape, node, dy) → dx."""

    def register(local: Local) -> Local:
        def rule(
            t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
        ) -> Cotangents:
            assert dys[0] is not None
            return {0: local(t, node, dys[0])}

        REVERSE.update({("", operator): rule for operator in operators})
        return local

    return register


@_unary("Identity", "Dropout", "Cast")
def _identity(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    return dy


@_unary("Neg")
def _neg(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    return t.op("Neg", dy)


@_unary("Relu")
def _relu(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    return t.op("Mul", dy, t.op("Sign", t.primal(node.outputs[0])))


@_unary("LeakyRelu")
def _leaky_relu(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    slope = get_float(node, "alpha", 0.01)
    positive = t.op("Cast", t.op("Greater", _x(t, node), 0.0), to=_float(t))
    return t.op("Mul", dy, t.op("Add", t.op("Mul", positive, 1.0 - slope), slope))


@_unary("Sigmoid")
def _sigmoid(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    y = t.primal(node.outputs[0])
    return t.op("Mul", dy, t.op("Mul", y, t.op("Sub", 1.0, y)))


@_unary("Tanh")
def _tanh(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    y = t.primal(node.outputs[0])
    return t.op("Mul", dy, t.op("Sub", 1.0, t.op("Mul", y, y)))


@_unary("Exp")
def _exp(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    return t.op("Mul", dy, t.primal(node.outputs[0]))


# Binary operators: the local derivatives, and what broadcasting asks for


def _times(t: Tape, node: ir.Node, slot: int, dy: ir.Value) -> ir.Value:
    """The cotangent of input `slot` before broadcasting is undone."""
    match (node.op_type, slot):
        case ("Sub", 1):
            return t.op("Neg", dy)
        case ("Mul", _):
            return t.op("Mul", dy, _input(t, node, 1 - slot))
        case ("Div", 0):
            return t.op("Div", dy, _input(t, node, 1))
        case ("Div", 1):
            ratio = t.op("Div", t.primal(node.outputs[0]), _input(t, node, 1))
            return t.op("Neg", t.op("Mul", dy, ratio))
    return dy


@reverse("Add", "Sub", "Mul", "Div")
def _binary(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,) = dys
    assert dy is not None
    shape = t.shape(node.outputs[0])
    result = {}
    for slot in wanted:
        value = node.inputs[slot]
        assert value is not None
        result[slot] = t.unbroadcast(_times(t, node, slot, dy), shape, t.shape(value))
    return result


def _binary_per_sample(slot: int) -> Callable[[Tape, ir.Node, ir.Value], ir.Value]:
    def rule(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
        value = node.inputs[slot]
        assert value is not None
        shape = t.shape(node.outputs[0])
        return t.unbroadcast(_times(t, node, slot, dy), shape, t.shape(value), batched=True)

    return rule


PER_SAMPLE.update(
    {
        ("", operator, slot): _binary_per_sample(slot)
        for operator in ("Add", "Sub", "Mul", "Div")
        for slot in (0, 1)
    }
)


def _x(t: Tape, node: ir.Node) -> ir.Value:
    return _input(t, node, 0)


def _input(t: Tape, node: ir.Node, slot: int) -> ir.Value:
    value = node.inputs[slot]
    assert value is not None
    return t.primal(value)


def _float(t: Tape) -> int:
    return int(ir.DataType.from_numpy(t.dtype))
