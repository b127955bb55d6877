"""Softmax and the normalisations."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_float, get_int
from onnxrd.autodiff.registry import PER_SAMPLE, Cotangents, NoRuleError, reverse
from onnxrd.autodiff.tape import Tape


@reverse("Softmax", "LogSoftmax")
def _softmax(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Softmax: dx = y ⊙ (dy − Σ dy y).  LogSoftmax: dx = dy − exp(y) Σ dy."""
    (dy,) = dys
    assert dy is not None
    y, axes = t.primal(node.outputs[0]), _softmax_axes(t, node)
    if node.op_type == "Softmax":
        along = t.sum(t.op("Mul", dy, y), axes, keepdims=True)
        return {0: t.op("Mul", y, t.op("Sub", dy, along))}
    total = t.sum(dy, axes, keepdims=True)
    return {0: t.op("Sub", dy, t.op("Mul", t.op("Exp", y), total))}


def _softmax_axes(t: Tape, node: ir.Node) -> list[int]:
    """The axes of one distribution: before opset 13 all from `axis` on."""
    rank = t.rank(node.outputs[0])
    opset = t.trace.model.opset_imports.get("", 1)
    axis = get_int(node, "axis", -1 if opset >= 13 else 1) % rank
    return [axis] if opset >= 13 else list(range(axis, rank))


@reverse("BatchNormalization")
def _batch_normalization(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Y = γ (x − m) / √(v + ε) + β with the stored statistics m, v: inference only."""
    dy, (x, gamma, _, mean, variance) = dys[0], node.inputs[:5]
    assert dy is not None and x is not None
    if get_int(node, "training_mode", 0) or wanted - {0, 1, 2}:
        raise NoRuleError("training mode, or a gradient of the stored statistics")
    assert gamma is not None and mean is not None and variance is not None
    column = (-1, *[1] * (t.rank(x) - 2))
    inverse = _inverse_deviation(t, node, variance)
    others = [axis for axis in range(t.rank(x)) if axis != 1]
    result = {}
    if 0 in wanted:
        scale = t.reshape(t.op("Mul", t.primal(gamma), inverse), column)
        result[0] = t.op("Mul", dy, scale)
    if 1 in wanted:
        result[1] = t.sum(_normalised_times(t, node, dy), others)
    if 2 in wanted:
        result[2] = t.sum(dy, others)
    return result


def _inverse_deviation(t: Tape, node: ir.Node, variance: ir.Value) -> ir.Value:
    epsilon = get_float(node, "epsilon", 1e-5)
    return t.op("Reciprocal", t.op("Sqrt", t.op("Add", t.primal(variance), epsilon)))


def _normalised_times(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """Dy ⊙ (x − m) / √(v + ε), before it is summed to the gradient of γ."""
    x, _, _, mean, variance = node.inputs[:5]
    assert x is not None and mean is not None and variance is not None
    column = (-1, *[1] * (t.rank(x) - 2))
    centred = t.op("Sub", t.primal(x), t.reshape(t.primal(mean), column))
    scaled = t.op("Mul", centred, t.reshape(_inverse_deviation(t, node, variance), column))
    return t.op("Mul", dy, scaled)


def _gamma_per_sample(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    return t.sum(_normalised_times(t, node, dy), list(range(2, t.rank(node.outputs[0]))))


def _beta_per_sample(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    return t.sum(dy, list(range(2, t.rank(node.outputs[0]))))


PER_SAMPLE["", "BatchNormalization", 1] = _gamma_per_sample
PER_SAMPLE["", "BatchNormalization", 2] = _beta_per_sample


@reverse("ReduceSum", "ReduceMean")
def _reduce(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """The cotangent (its share, for a mean) goes back to everything that was summed."""
    (dy,), x = dys, node.inputs[0]
    assert dy is not None and x is not None
    shape, axes = t.shape(x), _reduced_axes(t, node)
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    dy = t.reshape(dy, kept)
    if node.op_type == "ReduceMean":
        dy = t.op("Mul", dy, 1.0 / float(np.prod([shape[axis] for axis in axes])))
    return {0: t.op("Expand", dy, t.ints(shape))}


def _reduced_axes(t: Tape, node: ir.Node) -> list[int]:
    """Axes from the attribute or the input; none given means all, or none (a no-op)."""
    x = node.inputs[0]
    assert x is not None
    rank = t.rank(x)
    attribute = node.attributes.get("axes")
    if attribute is not None:
        return [axis % rank for axis in attribute.as_ints()]
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is not None:
        axes = t.constant(given)
        if axes is None:
            raise NoRuleError("axes computed from the data")
        if axes.size:
            return [int(axis) % rank for axis in axes]
    return [] if get_int(node, "noop_with_empty_axes", 0) else list(range(rank))
