"""Gemm and MatMul."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_float, get_int
from onnxrd.autodiff.registry import Cotangents, NoRuleError, per_sample, reverse, squares
from onnxrd.autodiff.tape import Tape


@reverse("Gemm")
def _gemm(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Y = α A'B' + β C, A' and B' transposed where the attributes say so."""
    (dy,) = dys
    assert dy is not None
    a, b = _primals(t, node)
    alpha = get_float(node, "alpha", 1.0)
    trans_a, trans_b = get_int(node, "transA", 0), get_int(node, "transB", 0)
    result = {}
    if 0 in wanted and trans_a:
        result[0] = t.op("Gemm", b, dy, alpha=alpha, transA=trans_b, transB=1)
    elif 0 in wanted:
        result[0] = t.op("Gemm", dy, b, alpha=alpha, transB=1 - trans_b)
    if 1 in wanted and trans_b:
        result[1] = t.op("Gemm", dy, a, alpha=alpha, transA=1, transB=trans_a)
    elif 1 in wanted:
        result[1] = t.op("Gemm", a, dy, alpha=alpha, transA=1 - trans_a)
    if 2 in wanted:
        bias = node.inputs[2]
        assert bias is not None
        summed = t.unbroadcast(dy, t.shape(node.outputs[0]), t.shape(bias))
        result[2] = _scaled(t, summed, get_float(node, "beta", 1.0))
    return result


@squares(("Gemm", 1))
def _gemm_squares(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """One row a sample: Σ_n (a_nk dy_nm)² = (A²)ᵀ(dY²), a single product."""
    if t.shape(node.outputs[0])[0] != t.samples or get_int(node, "transA", 0):
        raise NoRuleError("not one row a sample")
    a, _ = _primals(t, node)
    alpha = get_float(node, "alpha", 1.0)
    a2, dy2 = t.op("Mul", a, a), t.op("Mul", dy, dy)
    if get_int(node, "transB", 0):
        return t.op("Gemm", dy2, a2, alpha=alpha**2, transA=1)
    return t.op("Gemm", a2, dy2, alpha=alpha**2, transA=1)


@per_sample(("Gemm", 1))
def _gemm_weight(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """[N·T, K] and [N·T, M] → [N, K, M] (or its transpose, as the weight is stored)."""
    if get_int(node, "transA", 0):
        raise NoRuleError("transA with a batched weight gradient")
    a, _ = _primals(t, node)
    assert node.inputs[0] is not None
    a3 = _per_sample_rows(t, a, t.shape(node.inputs[0]))
    dy3 = _per_sample_rows(t, dy, t.shape(node.outputs[0]))
    left, right = (dy3, a3) if get_int(node, "transB", 0) else (a3, dy3)
    product = t.op("MatMul", t.transpose(left, (0, 2, 1)), right)
    return _scaled(t, product, get_float(node, "alpha", 1.0))


@per_sample(("Gemm", 2))
def _gemm_bias(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    bias = node.inputs[2]
    assert bias is not None
    shape, target = t.shape(node.outputs[0]), t.shape(bias)
    if shape[0] != t.samples or (len(target) == 2 and target[0] not in (1, t.samples)):
        raise NoRuleError("not one row a sample")
    summed = t.unbroadcast(dy, shape, target, batched=True)
    return _scaled(t, summed, get_float(node, "beta", 1.0))


@reverse("MatMul")
def _matmul(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """Y = A B with numpy's rules: vectors are promoted, leading axes broadcast."""
    (dy,) = dys
    assert dy is not None and node.inputs[0] is not None and node.inputs[1] is not None
    a, b = _primals(t, node)
    shape_a, shape_b = t.shape(node.inputs[0]), t.shape(node.inputs[1])
    full_a = (1, *shape_a) if len(shape_a) == 1 else shape_a
    full_b = (*shape_b, 1) if len(shape_b) == 1 else shape_b
    lead = np.broadcast_shapes(full_a[:-2], full_b[:-2])
    shape_y = (*lead, full_a[-2], full_b[-1])
    dy = t.reshape(dy, shape_y) if shape_y != t.shape(node.outputs[0]) else dy
    result = {}
    if 0 in wanted:
        b = t.reshape(b, full_b) if full_b != shape_b else b
        da = t.op("MatMul", dy, _swapped(t, b, len(full_b)))
        da = t.unbroadcast(da, (*lead, *full_a[-2:]), full_a)
        result[0] = t.reshape(da, shape_a) if full_a != shape_a else da
    if 1 in wanted:
        a = t.reshape(a, full_a) if full_a != shape_a else a
        result[1] = _right_gradient(t, a, dy, full_a, shape_y, full_b)
        if full_b != shape_b:
            result[1] = t.reshape(result[1], shape_b)
    return result


def _right_gradient(
    t: Tape,
    a: ir.Value,
    dy: ir.Value,
    shape_a: tuple[int, ...],
    shape_y: tuple[int, ...],
    shape_b: tuple[int, ...],
) -> ir.Value:
    """DB of Y = A B; a plain matrix B shared by all leading axes is one product."""
    if len(shape_b) == 2:
        rows = int(np.prod(shape_y[:-1]))
        a2 = t.reshape(a, (rows, shape_a[-1]))
        return t.op("Gemm", a2, t.reshape(dy, (rows, shape_y[-1])), transA=1)
    db = t.op("MatMul", _swapped(t, a, len(shape_a)), dy)
    return t.unbroadcast(db, (*shape_y[:-2], *shape_b[-2:]), shape_b)


@squares(("MatMul", 1))
def _matmul_squares(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """As for Gemm: with one row a sample, (A²)ᵀ(dY²)."""
    x, y = _matrix_weight_shapes(t, node)
    if int(np.prod(x[:-1])) != t.samples:
        raise NoRuleError("not one row a sample")
    a, _ = _primals(t, node)
    a, dy = t.reshape(a, (t.samples, x[-1])), t.reshape(dy, (t.samples, y[-1]))
    return t.op("Gemm", t.op("Mul", a, a), t.op("Mul", dy, dy), transA=1)


@per_sample(("MatMul", 1))
def _matmul_weight(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """[N, …, K] and [N, …, M] → [N, K, M]."""
    x, y = _matrix_weight_shapes(t, node)
    a, _ = _primals(t, node)
    a3, dy3 = _per_sample_rows(t, a, x), _per_sample_rows(t, dy, y)
    return t.op("MatMul", t.transpose(a3, (0, 2, 1)), dy3)


@per_sample(("MatMul", 0))
def _matmul_left_weight(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
    """A weight on the left: [M, K] · [N, K, T] → per sample dY Xᵀ, [N, M, K]."""
    weight, other = node.inputs[0], node.inputs[1]
    assert weight is not None and other is not None
    x = t.shape(other)
    if len(t.shape(weight)) != 2 or len(x) != 3 or x[0] != t.samples:
        raise NoRuleError("a weight on the left of other than [N, K, T]")
    return t.op("MatMul", dy, t.transpose(t.primal(other), (0, 2, 1)))


def _matrix_weight_shapes(t: Tape, node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of A and Y where B is a plain matrix, the usual weight."""
    assert node.inputs[0] is not None and node.inputs[1] is not None
    x, w = t.shape(node.inputs[0]), t.shape(node.inputs[1])
    if len(w) != 2 or len(x) < 2:
        raise NoRuleError("a weight that is not a matrix")
    return x, t.shape(node.outputs[0])


def _per_sample_rows(t: Tape, x: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """[N·T, K] or [N, …, K] → [N, T, K]."""
    rows = int(np.prod(shape[:-1]))
    if rows % t.samples or shape[0] % t.samples:
        raise NoRuleError("rows that samples do not divide")
    return t.reshape(x, (t.samples, rows // t.samples, shape[-1]))


def _primals(t: Tape, node: ir.Node) -> tuple[ir.Value, ir.Value]:
    assert node.inputs[0] is not None and node.inputs[1] is not None
    return t.primal(node.inputs[0]), t.primal(node.inputs[1])


def _swapped(t: Tape, x: ir.Value, rank: int) -> ir.Value:
    return t.transpose(x, (*range(rank - 2), rank - 1, rank - 2))


def _scaled(t: Tape, x: ir.Value, factor: float) -> ir.Value:
    return x if factor == 1.0 else t.op("Mul", x, float(factor))
