"""Several codes in a word of 8 or 16 bits, decoded by a table of all runs of levels.

A word is Σᵢ codeᵢ·Lⁱ for i < d. The table [L^d, d] is levels[digits], where the digits
[L^d, d], ⌊word / Lⁱ⌋ mod L, are computed in the graph. Before opset 12, or where the model cannot
define functions and every weight would compute them anew, they are a shared tensor instead.
"""

import math

import numpy as np
import onnx

from onnxrd.encodings.fragment import Array, Builder, Fragment, decoder
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Codebook

# Size would be shorter than Shape and Squeeze, but onnxruntime lacks it for float16 and then does
# not fold.
_DIGITS = """
S = Shape(l)
L = Squeeze(S)
n = ReduceProd<keepdims: int = 0>(s)
m = Size(q)
z = Constant<value_int: int = 0>()
o = Constant<value_int: int = 1>()
x = Sub(n, o)
y = Div(x, m)
d = Add(y, o)
e = Range(z, d, o)
p = Pow(L, e)
k = Pow(L, d)
b = Range(z, k, o)
c = Constant<value_ints: ints = [-1, 1]>()
r = Reshape(b, c)
h = Div(r, p)
g = Mod(h, L)"""
_STORED_DIGITS = "g = Cast<to: int = 6>(j)"
_RUNS = """
t = Gather(l, g)
i = Cast<to: int = 6>(q)
u = Gather(t, i)"""
_CUT = """
f = Constant<value = int64[1] {-1}>()
v = Reshape(u, f)
N = ReduceProd(s)
Z = Constant<value = int64[1] {0}>()
a = Slice(v, Z, N)
w = Reshape(a, s)"""
_CUT_BEFORE_OPSET_10 = """
v = Flatten<axis: int = 0>(u)
a = Slice<axes: ints = [1], starts: ints = [0], ends: ints = [ENTRIES]>(v)
w = Reshape(a, s)"""


def bits_a_code(levels: int, word: int = 8) -> float:
    """What a code takes in words of so many bits; as many words as it needs, if more than one."""
    if levels > 1 << word:
        return 2.0 * word
    return word / next(d for d in range(word, 0, -1) if levels**d <= 1 << word)


def codes_a_word(levels: int, entries: int, word: int = 8) -> int:
    """d: as many as fit, but no more than spread evenly over the words that are needed anyway.

    The decoder finds it as ⌈entries / words⌉.
    """
    most = round(word / bits_a_code(levels, word))
    return math.ceil(entries / math.ceil(entries / most))


def pack(codes: Array, levels: int, dtype: np.dtype[np.unsignedinteger]) -> Array:
    """The words [⌈n/d⌉] of codes [*weight] with n entries; the last is filled up with zeros."""
    a_word = codes_a_word(levels, codes.size, 8 * dtype.itemsize)
    flat = codes.ravel().astype(dtype, copy=False)
    flat = np.pad(flat, (0, -flat.size % a_word))
    words = np.zeros(flat.size // a_word, dtype)
    for i in range(a_word):
        words += flat[i::a_word] * dtype.type(levels**i)
    return words


def encode(name: str, codebook: Codebook, slot: Slot, word: int) -> Fragment:
    """Codes packed into words of so many bits.

    Args:
        name: of the encoding.
        codebook: of 2 to 2^word levels, at least one entry.
        slot: its place.
        word: 8 or 16.
    """
    entries, levels = math.prod(codebook.shape), len(codebook.levels)
    dtype = np.dtype(f"uint{word}")
    a_word = codes_a_word(levels, entries, word)
    words = math.ceil(entries / a_word)
    cut = entries if entries % a_word else 0
    builder = Builder(slot)
    inputs = [
        builder.packed(slot.stem, dtype, (words,), lambda: pack(codebook.codes, levels, dtype)),
        builder.tensor(f"{slot.stem}l", codebook.levels),
        builder.shape(codebook.shape),
    ]
    if stores_digits(slot):
        digits = np.arange(levels**a_word)[:, None] // levels ** np.arange(a_word) % levels
        key = f"{slot.prefix}d{levels}x{a_word}"
        inputs.append(builder.shared_tensor(key, digits.astype(np.uint8)))
    inline = bool(cut) and slot.opset < 10
    builder.call(_decoder(slot, cut), inputs, slot.output, inline=inline)
    return builder.build(name, codebook, load_nbytes=_load_nbytes(codebook, slot, words, a_word))


def _load_nbytes(codebook: Codebook, slot: Slot, words: int, a_word: int) -> int:
    """Bytes of the table, of what leads to it, and of what the words become."""
    codes, item = codebook.codes.size, int(codebook.levels.itemsize)
    rows: int = len(codebook.levels) ** a_word
    entries = rows * a_word
    table = entries * (4 + item) if stores_digits(slot) else entries * (16 + item) + 16 * rows
    decoded = item * (words * a_word + codes)
    cut = decoded if codes % a_word else 0
    return table + 4 * words + decoded + cut


def stores_digits(slot: Slot) -> bool:
    """Whether the digits are a tensor, d·L^d bytes, rather than computed."""
    return slot.opset < 12 or not slot.has_functions


def joined(opset: int, cut: int) -> str:
    """The end of a decoder, runs u [⌈n/d⌉, d], shape s → w [*weight].

    Args:
        opset: version of the standard operators; before 10 a body with a cut depends on n.
        cut: n, if d does not divide it; else 0.
    """
    if not cut:
        return "\nw = Reshape(u, s)"
    return _CUT if opset >= 10 else _CUT_BEFORE_OPSET_10.replace("ENTRIES", str(cut))


def _decoder(slot: Slot, cut: int) -> onnx.FunctionProto:
    """The function (words [⌈n/d⌉], levels [L], shape[, digits [L^d, d]]) → [*weight].

    Args:
        slot: for the opset, and whether digits are given.
        cut: n, if d does not divide it; else 0.
    """
    stored = stores_digits(slot)
    body = (_STORED_DIGITS if stored else _DIGITS) + _RUNS + joined(slot.opset, cut)
    signature = f"{'lut_cut' if cut else 'lut'} (q, l, s{', j' if stored else ''}) => (w)"
    return decoder(slot.opset, signature, body)
