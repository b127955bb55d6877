"""A code for several weights: Gather(vectors, codes). Opset 7.

Codes take a byte for up to 256 vectors, else two; for up to 16 vectors 4 bits (opset 21), or
several of them share a byte, as those of a codebook do.
"""

import math
from collections.abc import Iterator

import numpy as np
import onnx

from onnxrd.encodings import lut
from onnxrd.encodings.byte_lut import BYTE_LUT
from onnxrd.encodings.encoding import Encoding
from onnxrd.encodings.fragment import Builder, Fragment, decoder
from onnxrd.encodings.native_int4 import native_dtype
from onnxrd.encodings.slot import Slot
from onnxrd.encodings.word_lut import WORD_LUT
from onnxrd.quantizers import Codebook, Quantized, VectorCodebook

NAME = "vector_codes"

_RUNS = """
i = Cast<to: int = 6>(q)
u = Gather(l, i)"""


def call(builder: Builder, codes: str, book: VectorCodebook) -> None:
    """The weight, of its codes [⌈n/d⌉], of any integer type that Cast knows."""
    slot, entries = builder.slot, math.prod(book.shape)
    cut = entries if entries % book.dimensions else 0
    levels = builder.tensor(f"{slot.stem}l", book.levels)
    inputs = (codes, levels, builder.shape(book.shape))
    builder.call(_decoder(slot.opset, cut), inputs, slot.output, inline=cut > 0 and slot.opset < 10)


def _decoder(opset: int, cut: int) -> onnx.FunctionProto:
    """The function (codes [⌈n/d⌉], levels [K, d], shape) → [*weight]; cut as for `lut.joined`."""
    signature = f"{'vectors_cut' if cut else 'vectors'} (q, l, s) => (w)"
    return decoder(opset, signature, _RUNS + lut.joined(opset, cut))


def load_nbytes(book: VectorCodebook) -> int:
    """Bytes of the indices, of the runs, and of what they become."""
    entries, made = math.prod(book.shape), book.codes.size * book.dimensions
    whole = made + entries + (made + entries if made > entries else 0)
    return 4 * book.codes.size + book.levels.itemsize * whole


def _accepts(quantized: Quantized, slot: Slot) -> bool:
    return isinstance(quantized, VectorCodebook) and slot.opset >= 7 and 0 not in quantized.shape


def _encode(quantized: Quantized, slot: Slot) -> Fragment:
    assert isinstance(quantized, VectorCodebook)
    return min(_ways(quantized, slot), key=lambda fragment: fragment.nbytes)


def _ways(book: VectorCodebook, slot: Slot) -> Iterator[Fragment]:
    """With codes as they are, and with several of them in a word."""
    builder, part = Builder(slot), slot.part("c")
    dtype = native_dtype(len(book.levels), slot) or book.codes.dtype
    codes = builder.packed(part.output, dtype, book.codes.shape, lambda: book.codes.astype(dtype))
    yield _built(builder, codes, book)
    symbols = Codebook(book.codes, np.arange(len(book.levels), dtype=book.codes.dtype))
    for encoding in (BYTE_LUT, WORD_LUT):
        if slot.opset >= 9 and encoding.accepts(symbols, part):  # before, Flatten is for floats
            builder = Builder(slot)
            yield _built(builder, builder.include(encoding.encode(symbols, part)), book)


def _built(builder: Builder, codes: str, book: VectorCodebook) -> Fragment:
    call(builder, codes, book)
    return builder.build(NAME, book, load_nbytes=load_nbytes(book))


VECTOR_CODES = Encoding(NAME, _accepts, _encode)
