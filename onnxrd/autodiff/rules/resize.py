"""Resampling: Resize and Upsample are linear, and separable into one matrix for each axis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.alone import run_alone
from onnxrd.autodiff.attributes import get_ints, get_string
from onnxrd.autodiff.registry import Cotangents, NoRuleError, reverse
from onnxrd.autodiff.rules.along import transposed_matrix
from onnxrd.autodiff.tape import Array, Tape


@dataclass(frozen=True)
class _Asked:
    """What a node asks for along one axis.

    Attributes:
        length: of the input.
        scale: of the axis, None if a size is given.
        size: of the output, None if a scale is given.
        region: where the part to resample begins and ends (for "tf_crop_and_resize").
    """

    length: int
    scale: float | None
    size: int | None
    region: tuple[float, float]

    @property
    def is_identity(self) -> bool:
        return self.region == (0.0, 1.0) and (self.scale == 1.0 or self.size == self.length)


@reverse("Resize", "Upsample")
def _resize(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    (dy,), x = dys, node.inputs[0]
    assert dy is not None and x is not None
    shape = list(t.shape(node.outputs[0]))
    for axis, asked in reversed(list(enumerate(_asked(t, node, t.shape(x))))):
        if asked.is_identity:
            continue
        matrix = _interpolation(t, node, asked)
        if len(matrix) != shape[axis]:
            raise NoRuleError("a size that is rounded up to keep the aspect ratio")
        dy = transposed_matrix(t, dy, shape, axis, matrix)
        shape[axis] = asked.length
    return {0: dy}


def _asked(t: Tape, node: ir.Node, shape: Sequence[int]) -> list[_Asked]:
    """What the node asks for, for every axis."""
    axes = get_ints(node, "axes", list(range(len(shape))))
    modern = len(node.inputs) > 2
    roi = _numbers(t, node, 1, "roi") if modern else []
    scales: Sequence[float | None] = _numbers(t, node, 2 if modern else 1, "scales")
    if "scales" in node.attributes:
        scales = list(node.attributes["scales"].as_floats())
    sizes = [int(size) for size in _numbers(t, node, 3, "sizes")]
    policy = get_string(node, "keep_aspect_ratio_policy", "stretch")
    if sizes and policy != "stretch":
        ratios = [size / shape[axis] for size, axis in zip(sizes, axes)]
        scales = [min(ratios) if policy == "not_larger" else max(ratios)] * len(axes)
        sizes = []
    if get_string(node, "coordinate_transformation_mode", "") != "tf_crop_and_resize":
        roi = []
    asked = [_Asked(length, 1.0, None, (0.0, 1.0)) for length in shape]
    for k, axis in enumerate(axes):
        region = (roi[k], roi[len(axes) + k]) if roi else (0.0, 1.0)
        scale, size = (None, sizes[k]) if sizes else (scales[k], None)
        asked[axis] = _Asked(shape[axis], scale, size, region)
    return asked


def _numbers(t: Tape, node: ir.Node, slot: int, name: str) -> list[float]:
    """A list given as an input; absent ones are empty."""
    if slot >= len(node.inputs) or node.inputs[slot] is None:
        return []
    value = t.constant(node.inputs[slot])
    if value is None:
        raise NoRuleError(f"{name} computed from the data")
    return [float(number) for number in value.reshape(-1)]


def _interpolation(t: Tape, node: ir.Node, asked: _Asked) -> Array:
    """[output, input] along one axis: the same operator, applied to unit vectors and to zeros."""
    n, opset = asked.length, t.trace.opset
    units = np.concatenate([np.eye(n), np.zeros((1, n))]).reshape(n + 1, 1, n, 1)
    scales = np.array([1, 1, 1 if asked.scale is None else asked.scale, 1], np.float32)
    roi = np.array([0, 0, asked.region[0], 0, 1, 1, asked.region[1], 1], np.float32)
    inputs: list[Array | None] = [units.astype(np.float32), roi, scales]
    if asked.size is not None:
        none = np.zeros(0, np.float32) if opset < 13 else None
        inputs[2:] = [none, np.array([n + 1, 1, asked.size, 1], np.int64)]
    attributes = {k: a for k, a in node.attributes.items() if k not in _ABOUT_AXES}
    if opset < 9:
        attributes["scales"] = ir.AttrFloat32s("scales", scales.tolist())
        inputs = inputs[:1]
    elif opset < 11:
        inputs = [inputs[0], scales]
    answers = run_alone(node, opset, inputs, attributes)[:, 0, :, 0]
    return np.ascontiguousarray((answers[:-1] - answers[-1]).T)


_ABOUT_AXES = frozenset({"axes", "scales", "keep_aspect_ratio_policy"})
