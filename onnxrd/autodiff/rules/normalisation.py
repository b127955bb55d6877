"""Softmax, and normalisation by stored statistics."""

from collections.abc import Sequence

import onnx_ir as ir

from onnxrd.autodiff.attributes import get_float, get_int
from onnxrd.autodiff.registry import PER_SAMPLE, Cotangents, NoRuleError, reverse
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.terms import Term


@reverse("Softmax", "LogSoftmax")
def _softmax(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Softmax: dx = y ⊙ (dy − Σ dy y).  LogSoftmax: dx = dy − exp(y) Σ dy."""
    (dy,) = dys
    assert dy is not None
    y, axes = t.primal(node.outputs[0]), _softmax_axes(t, node)
    if _is_chosen_from(node.outputs[0]):  # where nothing arrives NaN times zero must be zero
        y = t.op("Where", t.op("IsNaN", y), 0.0, y)
    if node.op_type == "Softmax":
        along = t.sum(t.op("Mul", dy, y), axes, keepdims=True)
        return {0: t.op("Mul", y, t.op("Sub", dy, along))}
    total = t.sum(dy, axes, keepdims=True)
    return {0: t.op("Sub", dy, t.op("Mul", t.op("Exp", y), total))}


def _is_chosen_from(value: ir.Value) -> bool:
    """Whether Where may leave parts of it out, as attention does with rows that are all masked."""
    nodes = [node for node, _ in value.uses()]
    return any(
        node.op_type == "Where"
        or (node.op_type in ("Cast", "Identity") and _is_chosen_from(node.outputs[0]))
        for node in nodes
    )


def _softmax_axes(t: Tape, node: ir.Node) -> list[int]:
    """The axes of one distribution: before opset 13 all from `axis` on."""
    rank = t.rank(node.outputs[0])
    modern = t.trace.opset >= 13
    axis = get_int(node, "axis", -1 if modern else 1) % rank
    return [axis] if modern else list(range(axis, rank))


@reverse("BatchNormalization")
def _batch_normalization(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Y = γ (x − m) / √(v + ε) + β with the stored statistics m, v: inference only."""
    dy, (x, gamma, _, mean, variance) = dys[0], node.inputs[:5]
    assert dy is not None and x is not None
    training = get_int(node, "training_mode", 0) or any(y.name for y in node.outputs[1:])
    if training or not get_int(node, "spatial", 1):
        raise NoRuleError("training mode, or statistics for every place")
    assert gamma is not None and mean is not None and variance is not None
    column = (-1, *[1] * (t.rank(x) - 2))
    others = [axis for axis in range(t.rank(x)) if axis != 1]
    inverse = _inverse_deviation(t, node, variance)
    scale = Term(t, t.primal(gamma)) * inverse
    result = {}
    if 0 in wanted:
        result[0] = Term(t, dy) * scale.reshape(column)
    if wanted & {2, 3}:
        result[2] = Term(t, t.sum(dy, others))
        result[3] = -(result[2] * scale)
    if wanted & {1, 4}:
        result[1] = Term(t, t.sum(_normalised_times(t, node, dy), others))
        result[4] = result[1] * scale * inverse * -0.5
    return {slot: result[slot].value for slot in wanted}


def _inverse_deviation(t: Tape, node: ir.Node, variance: ir.Value) -> Term:
    return 1 / (Term(t, t.primal(variance)) + get_float(node, "epsilon", 1e-5)).op("Sqrt")


def _normalised_times(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """Dy ⊙ (x − m) / √(v + ε), before it is summed to the gradient of γ."""
    x, _, _, mean, variance = node.inputs[:5]
    assert x is not None and mean is not None and variance is not None
    column = (-1, *[1] * (t.rank(x) - 2))
    centred = Term(t, t.primal(x)) - Term(t, t.primal(mean)).reshape(column)
    return (Term(t, dy) * centred * _inverse_deviation(t, node, variance).reshape(column)).value


def _gamma_per_sample(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    return t.sum(_normalised_times(t, node, dy), list(range(2, t.rank(node.outputs[0]))))


def _beta_per_sample(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    return t.sum(dy, list(range(2, t.rank(node.outputs[0]))))


PER_SAMPLE["", "BatchNormalization", 1] = _gamma_per_sample
PER_SAMPLE["", "BatchNormalization", 2] = _beta_per_sample
