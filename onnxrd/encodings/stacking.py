"""Weights of several parts below one another: each part is encoded like a weight of its own.

Then the parts are put together and their rows in place: Gather(Concat(parts), places), the places
being counted from the few rows that were moved. Opset 11, see `LEAST_OPSET`.
"""

from collections.abc import Mapping
from functools import cache

import onnx
import onnx.helper

from onnxrd.encodings.fragment import Builder, Fragment, decoder
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Quantized, Stacked

LEAST_OPSET = 11


def apart(
    quantized: Mapping[str, Quantized], slots: Mapping[str, Slot]
) -> tuple[dict[str, Quantized], dict[str, Slot]]:
    """The weights and their places, with the parts of a stacked one instead of itself."""
    weights: dict[str, Quantized] = {}
    places: dict[str, Slot] = {}
    for name, one in quantized.items():
        if not isinstance(one, Stacked):
            weights[name], places[name] = one, slots[name]
            continue
        for part, place in zip(one.parts, _places(one, slots[name])):
            weights[place.output], places[place.output] = part, place
    return weights, places


def together(
    fragments: Mapping[str, Fragment],
    quantized: Mapping[str, Quantized],
    slots: Mapping[str, Slot],
) -> dict[str, Fragment]:
    """A fragment for each weight, of those for all that `apart` gave."""
    return {
        name: _joined(one, slots[name], [fragments[p.output] for p in _places(one, slots[name])])
        if isinstance(one, Stacked)
        else fragments[name]
        for name, one in quantized.items()
    }


def _places(stacked: Stacked, slot: Slot) -> list[Slot]:
    return [slot.part(f"_{number}") for number in range(len(stacked.parts))]


def _joined(stacked: Stacked, slot: Slot, parts: list[Fragment]) -> Fragment:
    builder, whole = Builder(slot), f"{slot.stem}_"
    builder.node(
        onnx.helper.make_node(
            "Concat", [builder.share_fragment(part) for part in parts], [whole], axis=0
        )
    )
    moved = builder.varints(f"{slot.stem}_m", stacked.moved.tolist())
    builder.call(_in_place(slot.opset), (whole, moved), slot.output)
    dense = sum(part.dense_nbytes for part in parts)
    names = dict.fromkeys(part.encoding for part in parts)
    return builder.build(
        "+".join(names),
        stacked,
        load_nbytes=3 * dense + 8 * 8 * stacked.shape[0],
        portion=sum(part.portion for part in parts),
    )


@cache
def _in_place(opset: int) -> onnx.FunctionProto:
    """The function (parts [R, C], moved rows [F]) → [R, C], see `Stacked`.

    A row of the weight that was not moved is behind as many rows as there are such before it; the
    moved ones are behind all of these.
    """
    return decoder(
        opset,
        "in_place (t, m) => (w)",
        """
        i = Constant<value = int64 {0}>()
        j = Constant<value = int64 {1}>()
        k = Constant<value = int64[1] {0}>()
        s = Shape(t)
        n = Gather(s, k)
        a = ConstantOfShape<value = int64[1] {1}>(n)
        z = Sub(m, m)
        b = ScatterElements<axis: int = 0>(a, m, z)
        c = CumSum(b, i)
        d = Sub(c, j)
        f = Shape(m)
        g = ConstantOfShape<value = int64[1] {1}>(f)
        h = CumSum<reverse: int = 1>(g, i)
        e = Sub(n, h)
        p = ScatterElements<axis: int = 0>(d, m, e)
        w = Gather<axis: int = 0>(t, p)""",
    )
