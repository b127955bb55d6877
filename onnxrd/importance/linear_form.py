"""A layer as a matrix product: which entries of its weight multiply which inputs.

Whatever the operator, y = Ŵ x with Ŵ [R, K] and the layer's inputs x [K], one such product at each
position (of an image, of a sequence), maybe in G groups that share nothing. The second moment
E[x xᵀ] then says what errors in a row of Ŵ cost together: eᵀ E[x xᵀ] e is the mean squared change
of that output.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.graph.uses import Use
from onnxrd.graph.weights import Weight

Array = NDArray[np.float32]
Indices = NDArray[np.intp]
_Build = Callable[[Use, Indices], "LinearForm | None"]
Columns = Callable[[Array, np.random.Generator, int], Array]
"""(input of the layer, generator, most positions) → [G, P, K]: inputs at some of its positions."""


@dataclass(frozen=True, eq=False)
class LinearForm:
    """A weight as a stack of matrices, and how to read the inputs that they multiply.

    Attributes:
        index: [G, R, K], the position of each entry in the flattened weight.
        tap: name of the value that the layer reads.
        columns: picks inputs from an array of that value.
        bias: name of the constant [G·R] that is added to the layer's output, "" if there is none.
        output: name of the layer's output, "" if the rows do not lie along one of its axes.
        axis: of the output, of length G·R; the only one where the output is a vector.
        others: the forms of the other layers that multiply with the same matrices.
    """

    index: Indices
    tap: str
    columns: Columns
    bias: str = ""
    output: str = ""
    axis: int = -1
    others: tuple["LinearForm", ...] = ()

    @property
    def places(self) -> tuple["LinearForm", ...]:
        """The forms of all the layers that the weight is in."""
        return (self, *self.others)

    def matrices(self, weight: Array) -> Array:
        """[G, R, K] of [*weight]."""
        return np.asarray(weight.reshape(-1)[self.index])

    def weight(self, matrices: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """[*weight] of [G, R, K]."""
        flat = np.empty(self.index.size, matrices.dtype)
        flat[self.index.reshape(-1)] = matrices.reshape(-1)
        return flat.reshape(shape)


def linear_form(weight: Weight) -> LinearForm | None:
    """The linear form of a weight; None where a use of it has none.

    One that multiplies a constant has none. Several operators may use it, all with the same
    matrices; what they add belongs to each of them alone.
    """
    forms = [_form(weight, use) for use in weight.uses]
    first = forms[0] if forms else None
    same = [f for f in forms if f and first and np.array_equal(f.index, first.index)]
    if not same or len(same) < len(forms):
        return None
    return same[0] if len(same) == 1 else replace(same[0], bias="", output="", others=(*same[1:],))


def _form(weight: Weight, use: Use) -> LinearForm | None:
    """The linear form of a weight at one of its uses."""
    moved = _moved_index(weight, use)
    build = _FORMS.get(use.node.domain, {}).get((use.node.op_type, use.slot))
    if moved is None or build is None:
        return None
    tapped = use.node.inputs[1 - use.slot]
    return build(use, moved) if tapped is not None and tapped.const_value is None else None


def _moved_index(weight: Weight, use: Use) -> Indices | None:
    """The entries' positions as they are arranged at the use, behind operators that move them."""
    index = np.arange(weight.size, dtype=np.intp).reshape(weight.shape)
    for node in use.moved:
        if node.op_type == "Transpose":
            attribute = node.attributes.get("perm")
            index = index.transpose(list(attribute.as_ints()) if attribute else None)
        elif node.op_type not in ("Identity", "Cast"):
            return None
    return index


def _ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    attribute = node.attributes.get(name)
    return list(default) if attribute is None else list(attribute.as_ints())


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _name(node: ir.Node, slot: int) -> str:
    value = node.inputs[slot] if slot < len(node.inputs) else None
    return "" if value is None else str(value.name)


def _constant(node: ir.Node, slot: int) -> str:
    """The name of an input that is a constant of this node alone."""
    value = node.inputs[slot] if slot < len(node.inputs) else None
    return str(value.name) if value is not None and _own(value) else ""


def _own(value: ir.Value) -> bool:
    once = len(value.uses()) == 1 and not value.is_graph_output()
    return once and value.const_value is not None and value.is_initializer()


def _bias(value: ir.Value | None, rows: int) -> str:
    """The name of a constant of one node alone that holds one number for each row."""
    if value is None or not _own(value) or value.const_value is None:
        return ""
    shape = value.const_value.shape.numpy()
    return str(value.name) if shape[-1:] == (rows,) and value.const_value.size == rows else ""


def _convolution(use: Use, index: Indices) -> LinearForm:
    node = use.node
    groups = _int(node, "group", 1)
    kernel = index.shape[2:]
    rank = len(kernel)
    strides = _ints(node, "strides", [1] * rank)
    dilations = _ints(node, "dilations", [1] * rank)
    pads = _ints(node, "pads", [0] * (2 * rank))
    attribute = node.attributes.get("auto_pad")
    auto = attribute.as_string() if attribute else "NOTSET"

    def columns(x: Array, rng: np.random.Generator, most: int) -> Array:
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
        before, after = _padding(x.shape[2:], spans, strides, pads, auto)
        x = np.pad(x, [(0, 0), (0, 0), *zip(before, after)])
        counts = [(n - s) // t + 1 for n, s, t in zip(x.shape[2:], spans, strides)]
        total = int(np.prod(counts))
        chosen = np.sort(rng.permutation(total)[: max(1, most // len(x))])
        starts = np.stack(np.unravel_index(chosen, counts)) * np.array(strides)[:, None]
        offsets = np.stack([o.ravel() for o in np.indices(kernel)]) * np.array(dilations)[:, None]
        places = starts[:, :, None] + offsets[:, None, :]  # [rank, P, taps]
        flat = np.ravel_multi_index(tuple(places), x.shape[2:])
        windows = x.reshape(*x.shape[:2], -1)[:, :, flat]  # [N, C, P, taps]
        n, channels, positions, taps = windows.shape
        split = windows.reshape(n, groups, channels // groups, positions, taps)
        return split.transpose(1, 0, 3, 2, 4).reshape(groups, n * positions, -1)

    rows = index.shape[0] // groups
    return LinearForm(
        index.reshape(groups, rows, -1),
        _name(node, 0),
        columns,
        _constant(node, 2),
        output=_output(node),
        axis=1,
    )


def _output(node: ir.Node) -> str:
    return str(node.outputs[0].name)


def _padding(
    shape: Sequence[int], spans: Sequence[int], strides: Sequence[int], pads: list[int], auto: str
) -> tuple[list[int], list[int]]:
    rank = len(spans)
    if auto == "VALID":
        return [0] * rank, [0] * rank
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        needed = [max((-(-n // t) - 1) * t + s - n, 0) for n, s, t in zip(shape, spans, strides)]
        less, more = [n // 2 for n in needed], [n - n // 2 for n in needed]
        return (less, more) if auto == "SAME_UPPER" else (more, less)
    return pads[:rank], pads[rank:]


def _transposed_convolution(use: Use, index: Indices) -> LinearForm:
    """Each input position sends its channels to all of a window: rows are channels × taps."""
    groups = _int(use.node, "group", 1)
    channels = index.shape[0]
    split = index.reshape(groups, channels // groups, -1)
    bias = _constant(use.node, 2) if index[0, 0].size == 1 else ""

    def columns(x: Array, rng: np.random.Generator, most: int) -> Array:
        flat = x.reshape(*x.shape[:2], -1)
        chosen = np.sort(rng.permutation(flat.shape[2])[: max(1, most // len(x))])
        picked = flat[:, :, chosen].reshape(len(x), groups, channels // groups, -1)
        return picked.transpose(1, 0, 3, 2).reshape(groups, -1, channels // groups)

    return LinearForm(split.transpose(0, 2, 1), _name(use.node, 0), columns, bias)


def _rows_of(x: Array, rng: np.random.Generator, most: int) -> Array:
    """[1, P, K] of [..., K]."""
    flat = x.reshape(-1, x.shape[-1])
    if len(flat) > most:
        flat = flat[np.sort(rng.permutation(len(flat))[:most])]
    return flat[None]


def _gemm(use: Use, index: Indices) -> LinearForm:
    node, right = use.node, use.slot == 1
    transposed = bool(_int(node, "transB" if right else "transA", 0))
    other = bool(_int(node, "transA" if right else "transB", 0))
    matrix = index if transposed == right else index.T

    def columns(x: Array, rng: np.random.Generator, most: int) -> Array:
        return _rows_of(x.T if other == right else x, rng, most)

    added = right and len(node.inputs) > 2 and _factor(node, "alpha") == _factor(node, "beta")
    return LinearForm(
        matrix[None],
        _name(node, 1 - use.slot),
        columns,
        _bias(node.inputs[2], len(matrix)) if added else "",
        output=_output(node),
        axis=1 if right else 0,
    )


def _factor(node: ir.Node, name: str) -> float:
    attribute = node.attributes.get(name)
    return 1.0 if attribute is None else attribute.as_float()


def _matmul(use: Use, index: Indices) -> LinearForm | None:
    if index.ndim != 2:
        return None
    right = use.slot == 1

    def columns(x: Array, rng: np.random.Generator, most: int) -> Array:
        return _rows_of(x if right or x.ndim == 1 else np.swapaxes(x, -1, -2), rng, most)

    matrix = index.T if right else index
    bias = _added(use.node.outputs[0], len(matrix)) if right else ""
    return LinearForm(
        matrix[None],
        _name(use.node, 1 - use.slot),
        columns,
        bias,
        output=_output(use.node),
        axis=-1 if right else -2,
    )


def _added(output: ir.Value, rows: int) -> str:
    """The constant that an Add behind a product adds to each of its rows."""
    uses = list(output.uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add" or output.is_graph_output():
        return ""
    node = uses[0].node
    return _bias(node.inputs[1 - uses[0].idx], rows)


def _recurrent(use: Use, index: Indices) -> LinearForm:
    """The input weights [directions, gates·H, K] of LSTM, GRU and RNN; x is [T, N, K]."""

    def columns(x: Array, rng: np.random.Generator, most: int) -> Array:
        rows = _rows_of(x, rng, most)
        return np.broadcast_to(rows, (len(index), *rows.shape[1:]))

    return LinearForm(index, _name(use.node, 0), columns)


def _attention(use: Use, index: Indices) -> LinearForm:
    """The weights [K, 3 H] of queries, keys and values together."""
    matrix = index.T
    bias = _bias(use.node.inputs[2], len(matrix)) if len(use.node.inputs) > 2 else ""
    return LinearForm(matrix[None], _name(use.node, 0), _rows_of, bias)


def _activated(build: _Build) -> _Build:
    """The form of a layer whose output is hidden by an activation."""

    def hidden(use: Use, index: Indices) -> LinearForm | None:
        form = build(use, index)
        return replace(form, output="") if form else None

    return hidden


_STANDARD: dict[tuple[str, int], _Build] = {
    ("Conv", 1): _convolution,
    ("ConvTranspose", 1): _transposed_convolution,
    ("Gemm", 0): _gemm,
    ("Gemm", 1): _gemm,
    ("MatMul", 0): _matmul,
    ("MatMul", 1): _matmul,
    ("LSTM", 1): _recurrent,
    ("GRU", 1): _recurrent,
    ("RNN", 1): _recurrent,
}

_FUSED: dict[tuple[str, int], _Build] = {
    ("Attention", 1): _attention,
    ("FusedConv", 1): _activated(_convolution),
    ("FusedGemm", 0): _activated(_gemm),
    ("FusedGemm", 1): _activated(_gemm),
}
"""Of what onnxruntime's optimizer makes of neighbouring operators."""

_FORMS = {"": _STANDARD, "ai.onnx": _STANDARD, "com.microsoft": _FUSED}
"""Domain → (operator, slot of the weight) → what makes its form."""
