"""Vectors in half precision, all in one tensor: two bytes an entry and a few for each vector."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.helper

from onnxrd.encodings.fragment import Array, Builder, Fragment
from onnxrd.encodings.slot import Slot

NAME = "half"

OPSET = 6
"""Since when a Cast takes its type as a number."""

WORTH = 64
"""Entries from which a tensor takes fewer bytes in half precision, for all the nodes it needs."""


def worth_halving(vectors: Mapping[str, Array], opset: int) -> dict[str, Array]:
    """Those that take fewer bytes as `half` stores them in a model of this opset."""
    if opset < OPSET:
        return {}
    flat = {name: vector for name, vector in vectors.items() if vector.ndim == 1}
    if sum(vector.size for vector in flat.values()) < WORTH:
        flat = {}
    return {n: v for n, v in vectors.items() if n in flat or (v.ndim != 1 and v.size >= WORTH)}


def half(vectors: Mapping[str, Array], slots: Mapping[str, Slot]) -> dict[str, Fragment]:
    """Fragments of float32 vectors whose entries are numbers of half precision.

    Those of one axis are cut from one tensor; others, such as [1, C, 1, 1], get a tensor each.

    Args:
        vectors: name → float32, of no more than one axis longer than 1.
        slots: name → place, all in one model of opset `OPSET` or later.
    """
    flat = {name: vector for name, vector in vectors.items() if vector.ndim == 1}
    found = _together(flat, slots) if flat else {}
    for name in (n for n in vectors if n not in flat):
        builder = Builder(slots[name])
        halves = builder.tensor(slots[name].stem, vectors[name].astype(np.float16))
        builder.node(_widening(halves, slots[name].output))
        found[name] = builder.fragment(
            NAME, load_nbytes=6 * vectors[name].size, dense_nbytes=4 * vectors[name].size
        )
    return found


def _together(vectors: Mapping[str, Array], slots: Mapping[str, Slot]) -> dict[str, Fragment]:
    places = [slots[name] for name in vectors]
    builder, stem = Builder(places[0]), f"{places[0].prefix}h"
    whole = np.concatenate(list(vectors.values()))
    builder.node(_widening(builder.tensor(stem, whole.astype(np.float16)), f"{stem}w"))
    sizes = [vector.size for vector in vectors.values()]
    builder.split(f"{stem}w", [place.output for place in places], sizes, f"{builder.slot.stem}n")
    builder.share(f"{stem}s", (), 6 * whole.size)
    found = {}
    for name, vector in vectors.items():
        one = Builder(slots[name])
        one.include_shared(builder)
        found[name] = one.fragment(NAME, load_nbytes=vector.nbytes, dense_nbytes=vector.nbytes)
    return found


def _widening(halves: str, output: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [halves], [output], to=onnx.TensorProto.FLOAT)
