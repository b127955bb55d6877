"""Transposes of linear maps along one axis: of matrices, and of selections of entries."""

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.tape import Array, Tape


def transposed_matrix(
    t: Tape, dy: ir.Value, shape: Sequence[int], axis: int, matrix: Array
) -> ir.Value:
    """Go back through y = M x along one axis.

    Args:
        t: the tape.
        dy: [*shape], with the entries of y along `axis`.
        shape: of dy.
        axis: along which the map went.
        matrix: M [length of y, length of x].

    Returns: Mᵀ dy, with the entries of x along `axis`.
    """
    matrix = matrix.astype(t.dtype)
    before, behind = prod(shape[:axis]), prod(shape[axis + 1 :])
    if behind == 1:
        dx = t.op("MatMul", t.reshape(dy, (before, shape[axis])), matrix)
    else:
        stack = t.reshape(dy, (before, shape[axis], behind))
        dx = t.op("MatMul", np.ascontiguousarray(matrix.T), stack)
    return t.reshape(dx, (*shape[:axis], matrix.shape[1], *shape[axis + 1 :]))


def transposed_selection(
    t: Tape, dy: ir.Value, shape: Sequence[int], axis: int, chosen: Array, length: int
) -> ir.Value:
    """Go back through y = x[chosen] along one axis: add what was chosen more than once.

    Args:
        t: the tape.
        dy: [*shape].
        shape: of dy.
        axis: along which entries were chosen.
        chosen: [length of y], non-negative indices.
        length: of x along `axis`.
    """
    if np.unique(chosen).size < chosen.size:
        return transposed_matrix(t, dy, shape, axis, np.eye(length)[chosen])
    if chosen.size and (np.diff(chosen) == 1).all():
        return pad_axis(t, dy, len(shape), axis, int(chosen[0]), length - 1 - int(chosen[-1]))
    origin = np.full(length, chosen.size)
    origin[chosen] = np.arange(chosen.size)
    if chosen.size < length:
        dy = pad_axis(t, dy, len(shape), axis, 0, 1)
    return t.op("Gather", dy, t.ints(origin.tolist()), axis=axis)


def pad_axis(t: Tape, x: ir.Value, rank: int, axis: int, before: int, behind: int) -> ir.Value:
    """Zeros before and behind along one axis; negative numbers cut."""
    if before == behind == 0:
        return x
    pads = [0] * (2 * rank)
    pads[axis], pads[rank + axis] = before, behind
    return t.op("Pad", x, t.ints(pads))
