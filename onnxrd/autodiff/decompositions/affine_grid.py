"""Grids of places to sample at."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_int
from onnxrd.autodiff.registry import NoRuleError, decomposition
from onnxrd.autodiff.rewriter import Rewriter


@decomposition("AffineGrid")
def _affine_grid(b: Rewriter, node: ir.Node) -> Sequence[ir.Value | None]:
    """θ (x y 1)ᵀ, or θ (x y z 1)ᵀ, where x, … are the places of pixels, from -1 to 1.

    The standard says it by a body with a Range of vectors, which onnxruntime refuses once folded.
    """
    theta, size = node.inputs
    assert theta is not None
    wanted = b.constant(size)
    if wanted is None:
        raise NoRuleError("its size depends on the data")
    samples, _, *space = (int(length) for length in wanted)
    corners = bool(get_int(node, "align_corners", 0))
    axes = np.meshgrid(*(_places(length, corners=corners) for length in space), indexing="ij")
    points = np.stack([*reversed(axes), np.ones(space)], axis=-1).reshape(-1, len(space) + 1)
    grid = b.op("MatMul", points.astype(b.dtype), b.transpose(theta, (0, 2, 1)))
    return [b.reshape(grid, (samples, *space, len(space)))]


def _places(length: int, *, corners: bool) -> np.ndarray:
    """Where the pixels of an axis are, if its ends are at -1 and 1: their centres, or corners'."""
    if corners:  # a single one is at 1 in onnxruntime; the standard divides by zero
        return np.linspace(-1, 1, length) if length > 1 else np.ones(1)
    return (2 * np.arange(length) + 1) / length - 1
