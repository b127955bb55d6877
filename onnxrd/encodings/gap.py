"""Sparse weights: the distance from each nonzero entry to the next, and their values. Opset 11.

`positions = CumSum(gaps)`, `weight = Reshape(ScatterElements(zeros, positions, values), shape)`.
The first gap is the position of the first nonzero entry. A gap that is too long for its type is
bridged by entries of value zero. Gaps take 8 bits (up to 255), 4 (up to 15), 2.67 (up to 5) or
2 (up to 3), whatever is least in all. The values of a codebook are stored in whatever encoding is
the cheapest for them; without the zero level, unless a bridge needs it.
"""

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.encodings.byte_codes import BYTE_CODES
from onnxrd.encodings.byte_lut import BYTE_LUT
from onnxrd.encodings.encoding import Encoding
from onnxrd.encodings.fill import FILL, nonzero
from onnxrd.encodings.fragment import Array, Builder, Fragment, decoder
from onnxrd.encodings.native_int4 import NATIVE_INT4, native_dtype
from onnxrd.encodings.slot import Slot
from onnxrd.encodings.word_lut import WORD_LUT
from onnxrd.quantizers import Codebook, Quantized, Sparse, weight_dtype

LONGEST = (255, 15, 5, 3)
"""The longest gaps to choose from: a byte holds 1, 2, 3 or 4 of the symbols 0…longest."""

VALUES = (FILL, BYTE_LUT, NATIVE_INT4, BYTE_CODES, WORD_LUT)
"""How the values of a codebook may be stored; those of a `Sparse` are stored as they are."""

_ZEROS = {"float32": "float", "float16": "float16", "float64": "double"}


def bridged(positions: NDArray[np.int64], longest: int) -> tuple[Array, NDArray[np.bool_]]:
    """Gaps between positions, with bridges where they would be longer than `longest`.

    Args:
        positions: [k], ascending, k > 0.
        longest: the longest gap.

    Returns:
        gaps: [k + bridges], uint8, summing up to the positions of entries and bridges.
        real: [k + bridges], False for a bridge.
    """
    gaps = np.diff(positions, prepend=0)
    long = np.flatnonzero(gaps > longest)
    if not len(long):
        return gaps.astype(np.uint8), np.ones(len(gaps), bool)
    bridges = np.zeros(len(gaps), np.int64)
    bridges[long] = (gaps[long] - 1) // longest
    ends = np.arange(len(gaps)) + np.cumsum(bridges)
    result = np.full(ends[-1] + 1, longest, np.uint8)
    result[ends] = gaps - bridges * longest
    real = np.zeros(len(result), bool)
    real[ends] = True
    return result, real


def _decoder(slot: Slot, dtype: np.dtype[Any]) -> onnx.FunctionProto:
    """The function (gaps [k], values [k], shape) → [*weight]."""
    suffix = "" if dtype == np.float32 else str(8 * dtype.itemsize)
    return decoder(
        slot.opset,
        f"gap{suffix} (g, v, s) => (w)",
        f"""
        x = Constant<value = int64 {{0}}>()
        d = Cast<to: int = 6>(g)
        i = CumSum(d, x)
        n = ReduceProd(s)
        e = ConstantOfShape<value = {_ZEROS[dtype.name]}[1] {{0}}>(n)
        f = ScatterElements(e, i, v)
        w = Reshape(f, s)""",
    )


def _zero_code(codebook: Codebook) -> int | None:
    """The code of the level +0.0."""
    found = np.flatnonzero(~nonzero(codebook.levels))
    return int(found[0]) if len(found) else None


def _is_stored(quantized: Codebook | Sparse) -> NDArray[np.bool_]:
    """[n], which entries are not +0.0; all of them if a codebook has no such level."""
    if isinstance(quantized, Sparse):
        return nonzero(quantized.values.ravel())
    zero = _zero_code(quantized)
    return np.ones(quantized.codes.size, bool) if zero is None else quantized.codes.ravel() != zero


def _accepts(quantized: Quantized, slot: Slot) -> bool:
    if not isinstance(quantized, Codebook | Sparse):
        return False
    dtype = weight_dtype(quantized)
    if slot.opset < 11 or dtype.name not in _ZEROS or math.prod(quantized.shape) >= 2**31:
        return False
    stored = int(np.count_nonzero(_is_stored(quantized)))
    return 0 < stored < math.prod(quantized.shape)


def _values(
    quantized: Codebook | Sparse, stored: NDArray[np.bool_], real: NDArray[np.bool_]
) -> Codebook | Sparse:
    """[k + bridges], the values of the stored entries and zeros for the bridges."""
    if isinstance(quantized, Sparse):
        values = np.zeros(len(real), quantized.values.dtype)
        values[real] = quantized.values.ravel()[stored]
        return Sparse(values)
    zero = _zero_code(quantized)
    assert zero is not None
    codes = np.full(len(real), zero, quantized.codes.dtype)
    codes[real] = quantized.codes.ravel()[stored]
    if not real.all():
        return Codebook(codes, quantized.levels)
    codes -= codes > zero
    narrow = codes.astype(np.uint8) if len(quantized.levels) <= 257 else codes
    return Codebook(narrow, np.delete(quantized.levels, zero))


def _add_gaps(builder: Builder, gaps: Array, longest: int) -> str:
    """The gaps as an integer tensor, decoded or of a type that Cast knows."""
    slot = builder.slot.part("g")
    if longest == 255:
        return builder.tensor(slot.output, gaps)
    native = native_dtype(longest + 1, slot)
    if native is not None and 1 << ir.DataType.from_numpy(native).bitwidth == longest + 1:
        return builder.packed(slot.output, native, gaps.shape, lambda: gaps.astype(native))
    symbols = Codebook(gaps, np.arange(longest + 1, dtype=np.uint8))
    return builder.include(BYTE_LUT.encode(symbols, slot))


def _encode(quantized: Quantized, slot: Slot) -> Fragment:
    assert isinstance(quantized, Codebook | Sparse)
    stored = _is_stored(quantized)
    fragments = (_with_gaps(quantized, slot, stored, longest) for longest in LONGEST)
    return min(fragments, key=lambda fragment: fragment.nbytes)


def _with_gaps(
    quantized: Codebook | Sparse, slot: Slot, stored: NDArray[np.bool_], longest: int
) -> Fragment:
    gaps, real = bridged(np.flatnonzero(stored), longest)
    values = _values(quantized, stored, real)
    builder = Builder(slot)
    gap_name = _add_gaps(builder, gaps, longest)
    part = slot.part("v")
    if isinstance(values, Sparse):
        value_name = builder.tensor(part.output, values.values)
        dtype = values.values.dtype
    else:
        options = (e.encode(values, part) for e in VALUES if e.accepts(values, part))
        value_name = builder.include(min(options, key=lambda fragment: fragment.nbytes))
        dtype = values.levels.dtype
    inputs = (gap_name, value_name, builder.shape(quantized.shape))
    builder.call(_decoder(slot, dtype), inputs, slot.output)
    return builder.build(
        "gap",
        quantized,
        load_nbytes=8 * len(gaps) + 3 * dtype.itemsize * math.prod(quantized.shape),
    )


GAP = Encoding("gap", _accepts, _encode)
