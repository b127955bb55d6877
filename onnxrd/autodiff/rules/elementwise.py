"""Elementwise operators of several inputs: a local derivative, summed where broadcast."""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxrd.autodiff.attributes import get_float
from onnxrd.autodiff.registry import PER_SAMPLE, Cotangents, NoRuleError, reverse
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.terms import Term

Product = Callable[[Tape, ir.Node, int, Term], Term]
"""(tape, node, slot, dy) → dy · ∂y/∂input, in the shape of the output."""


def _div(t: Tape, node: ir.Node, slot: int, dy: Term) -> Term:
    """y = a/b: dy/b, and −dy y/b."""
    b = _input(t, node, 1)
    return dy / b if slot == 0 else -(dy * (_output(t, node) / b))


def _pow(t: Tape, node: ir.Node, slot: int, dy: Term) -> Term:
    """y = x^p: dx = p x^(p-1), dp = y ln x, 0 where x is; the usual exponents without Pow."""
    x = _input(t, node, 0)
    if slot == 1:
        return dy * _output(t, node) * (x + x.equals(0.0)).op("Log")
    constant = t.constant(node.inputs[1])
    exponent = float(constant.reshape(())) if constant is not None and constant.size == 1 else None
    if exponent in (1.0, 2.0):
        return dy if exponent == 1.0 else dy * (x * 2.0)
    if exponent == 3.0:
        return dy * (x * x * 3.0)
    p = _input(t, node, 1)
    if constant is None or constant.dtype.kind != "f":
        p = p.op("Cast", to=int(ir.DataType.from_numpy(t.dtype)))
    return dy * (p * x.op("Pow", p - 1))


def _prelu(t: Tape, node: ir.Node, slot: int, dy: Term) -> Term:
    """y = x where x ≥ 0, else slope · x."""
    x = _input(t, node, 0)
    if slot == 1:
        return dy * x.op("Min", 0.0)
    return dy * ((x < 0) * (_input(t, node, 1) - 1) + 1)


def _where(t: Tape, node: ir.Node, slot: int, dy: Term) -> Term:
    """The cotangent goes to the input that was chosen."""
    assert node.inputs[0] is not None
    condition = t.primal(node.inputs[0])
    return dy * Term(t, t.mask(condition if slot == 1 else t.op("Not", condition)))


def _extreme(t: Tape, node: ir.Node, slot: int, dy: Term) -> Term:
    """To the largest (smallest) input, in equal parts where several are."""
    y = _output(t, node)
    hits = [_input(t, node, k).equals(y) for k in range(len(node.inputs))]
    return dy * hits[slot] if len(hits) == 1 else dy * hits[slot] / hits[0].op("Sum", *hits[1:])


def _clip(t: Tape, node: ir.Node, slot: int, dy: Term) -> Term:
    """y = min(max(x, low), high), each bound maybe absent; they were attributes before opset 11."""
    x, low, high = _input(t, node, 0), _bound(t, node, 1, "min"), _bound(t, node, 2, "max")
    if slot == 2 and high is not None:
        lifted = x if low is None else x.op("Max", low)
        return dy * (1 - (lifted < high))
    if slot == 1 and low is not None:
        raised = dy * (1 - (x > low))
        return raised if high is None else raised * (low < high)
    inside = [x.op("Greater", low)] if low is not None else []
    inside += [x.op("Less", high)] if high is not None else []
    if not inside:
        return dy
    both = inside[0] if len(inside) == 1 else inside[0].op("And", inside[1])
    return dy * Term(t, t.mask(both.value))


def _bound(t: Tape, node: ir.Node, slot: int, attribute: str) -> Term | None:
    if attribute in node.attributes:
        return Term(t, t.const(get_float(node, attribute, 0.0)))
    present = len(node.inputs) > slot and node.inputs[slot] is not None
    return _input(t, node, slot) if present else None


def _mod(t: Tape, node: ir.Node, slot: int, dy: Term) -> Term:
    """y = a − b n with a whole number n, which moves in steps."""
    if slot == 0:
        return dy
    return dy * ((_output(t, node) - _input(t, node, 0)) / _input(t, node, 1))


PRODUCTS: dict[str, Product] = {
    "Add": lambda t, node, slot, dy: dy,
    "Sub": lambda t, node, slot, dy: -dy if slot else dy,
    "Mul": lambda t, node, slot, dy: dy * _input(t, node, 1 - slot),
    "Div": _div,
    "Pow": _pow,
    "PRelu": _prelu,
    "Where": _where,
    "Clip": _clip,
    "Sum": lambda t, node, slot, dy: dy,
    "Mean": lambda t, node, slot, dy: dy * (1.0 / len(node.inputs)),
    "Mod": _mod,
    "Max": _extreme,
    "Min": _extreme,
}
"""Operator → the cotangent of one of its inputs before broadcasting is undone."""


@reverse(*PRODUCTS)
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
        product = PRODUCTS[node.op_type](t, node, slot, Term(t, dy))
        result[slot] = t.unbroadcast(product.value, shape, t.shape(value))
    return result


def _per_sample(slot: int) -> Callable[[Tape, ir.Node, ir.Value], ir.Value]:
    def rule(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
        value = node.inputs[slot]
        assert value is not None
        shape, target = t.shape(node.outputs[0]), t.shape(value)
        if shape[0] != t.samples or (len(target) == len(shape) and target[0] != 1):
            raise NoRuleError("the sample axis is not the first")
        product = PRODUCTS[node.op_type](t, node, slot, Term(t, dy))
        return t.unbroadcast(product.value, shape, target, batched=True)

    return rule


_WEIGHTS = [
    (operator, slot)
    for operator in ("Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Pow")
    for slot in (0, 1)
]
_WEIGHTS += [("PRelu", 1), ("Where", 1), ("Where", 2)]
PER_SAMPLE.update({("", operator, slot): _per_sample(slot) for operator, slot in _WEIGHTS})


def _input(t: Tape, node: ir.Node, slot: int) -> Term:
    value = node.inputs[slot]
    assert value is not None
    return Term(t, t.primal(value))


def _output(t: Tape, node: ir.Node) -> Term:
    return Term(t, t.primal(node.outputs[0]))
