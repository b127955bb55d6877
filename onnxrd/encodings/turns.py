"""Decoding in turns, so that not all that is computed on the way is in memory at once.

onnxruntime folds constants in passes over the graph, ten at most, and frees only at the end of a
pass what nothing reads any more. What shall wait for the next pass has to read a value that this
pass cannot compute. Such a value is the output of an If whose branch reads a tensor of a shape that
is only known when the pass has begun: the pass puts the branch in place of the If, and the next one
folds it (`later`). Releases that fold the branch at once only take more memory.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx
import onnx.helper

from onnxrd.encodings.fragment import Builder, decoder
from onnxrd.encodings.slot import Slot

MOST_TURNS = 8
"""With some to spare: what is not folded after ten passes is decoded each time the model runs."""


def possible(slot: Slot) -> bool:
    """Whether a model can have turns: it needs functions."""
    return slot.has_functions


@cache
def later(opset: int) -> onnx.FunctionProto:
    """The function (t) → true [1], a pass later than t [1], which is true."""
    return decoder(
        opset,
        "later (t) => (w)",
        """
        a = Constant<value = int64[1] {1}>()
        b = Constant<value = int64[1] {-1}>()
        s = Where(t, b, a)
        f = Constant<value = bool[1] {0}>()
        u = Reshape(f, s)
        w = If(t)<
            then_branch = x () => (bool[n] o) { o = Not(u) },
            else_branch = y () => (bool[n] p) { p = Not(t) }
        >""",
    )


def wait(builder: Builder, names: Sequence[str], *, turn: int) -> list[str]:
    """The same tensors, but constant in that turn only; the one of what does not wait is 0."""
    slot = builder.slot
    links = Builder(slot)
    last = links.shared_tensor(f"{slot.prefix}t", np.ones(1, bool))
    for number in range(1, turn + 1):
        before, last = last, f"{slot.prefix}t{number}"
        links.call(later(slot.opset), (before,), last)
        links.share(last, [], 0, turn=number)
    builder.include_shared(links)
    for name in names:
        builder.node(onnx.helper.make_node("Where", [last, name, name], [f"{name}w"]))
    return [f"{name}w" for name in names]
