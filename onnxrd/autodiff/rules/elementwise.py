"""Elementwise operators of several inputs: a local derivative, summed where broadcast."""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxrd.autodiff.registry import PER_SAMPLE, Cotangents, NoRuleError, reverse
from onnxrd.autodiff.tape import Tape


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
        case ("Mean", _):
            return t.op("Mul", dy, 1.0 / len(node.inputs))
        case ("Pow" | "PRelu" | "Where", _):
            return _SPECIAL[node.op_type](t, node, slot, dy)
        case ("Max" | "Min", _):
            return t.op("Mul", dy, _winner(t, node, slot))
    return dy


def _pow(t: Tape, node: ir.Node, slot: int, dy: ir.Value) -> ir.Value:
    """y = x^p: dx = p x^(p-1), dp = y ln x."""
    x, p = _input(t, node, 0), _input(t, node, 1)
    if slot == 0:
        lowered = t.op("Pow", x, t.op("Sub", p, 1.0))
        return t.op("Mul", dy, t.op("Mul", p, lowered))
    return t.op("Mul", dy, t.op("Mul", t.primal(node.outputs[0]), t.op("Log", x)))


def _prelu(t: Tape, node: ir.Node, slot: int, dy: ir.Value) -> ir.Value:
    """y = x where x ≥ 0, else slope · x."""
    x = _input(t, node, 0)
    if slot == 1:
        return t.op("Mul", dy, t.op("Min", x, 0.0))
    negative = t.mask(t.op("Less", x, 0.0))
    gain = t.op("Mul", negative, t.op("Sub", _input(t, node, 1), 1.0))
    return t.op("Mul", dy, t.op("Add", gain, 1.0))


def _where(t: Tape, node: ir.Node, slot: int, dy: ir.Value) -> ir.Value:
    """The cotangent goes to the input that was chosen."""
    condition = _input(t, node, 0)
    return t.op("Mul", dy, t.mask(condition if slot == 1 else t.op("Not", condition)))


def _winner(t: Tape, node: ir.Node, slot: int) -> ir.Value:
    """1 where input `slot` is the largest (smallest), in equal parts where several are."""
    y = t.primal(node.outputs[0])
    hits = [t.mask(t.op("Equal", _input(t, node, k), y)) for k in range(len(node.inputs))]
    return hits[slot] if len(hits) == 1 else t.op("Div", hits[slot], t.op("Sum", *hits))


_SPECIAL = {"Pow": _pow, "PRelu": _prelu, "Where": _where}
_OPERATORS = ("Add", "Sub", "Mul", "Div", "Pow", "PRelu", "Where", "Sum", "Mean", "Max", "Min")


@reverse(*_OPERATORS)
def _broadcast(
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


def _broadcast_per_sample(slot: int) -> Callable[[Tape, ir.Node, ir.Value], ir.Value]:
    def rule(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
        value = node.inputs[slot]
        assert value is not None
        shape, target = t.shape(node.outputs[0]), t.shape(value)
        if shape[0] != t.samples or (len(target) == len(shape) and target[0] != 1):
            raise NoRuleError("the sample axis is not the first")
        return t.unbroadcast(_times(t, node, slot, dy), shape, target, batched=True)

    return rule


PER_SAMPLE.update(
    {
        ("", operator, slot): _broadcast_per_sample(slot)
        for operator in ("Add", "Sub", "Mul", "Div")
        for slot in (0, 1)
    }
)
PER_SAMPLE["", "PRelu", 1] = _broadcast_per_sample(1)


def _input(t: Tape, node: ir.Node, slot: int) -> ir.Value:
    value = node.inputs[slot]
    assert value is not None
    return t.primal(value)
