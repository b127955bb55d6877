"""The decoder as model-local functions in standard operators. Opset 11.

States of a Huffman decoder are the inner nodes of the code's tree, numbered by breadth, the root is
0; those of numerals are v - 1 for v below L, then the inner nodes of the tree behind the slot that
rare symbols share. `tables` builds, from one flag for each child of an inner node, or from the
frequencies, the transitions by bit [S, 2], and composes them thrice into those by byte [S, 256];
likewise what is emitted: symbols from 1 in the code's order, 0 for none. `run` takes the lanes
through their bytes: i = state·256 + byte; state·256 = T[i].
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import onnx

from onnxrd.encodings.fragment import decoder
from onnxrd.quantizers.trellis import PERIOD, WINDOW


@dataclass(frozen=True)
class Kind:
    """What the functions of a decoder depend on.

    Attributes:
        apart: in this many bits, aligned, at most one code word ends: 1, 2, 4 or 8.
        wide: there are more than 255 symbols.
        several: it is one of several.
    """

    apart: int
    wide: bool
    several: bool

    @property
    def suffix(self) -> str:
        """Of the names of functions."""
        return f"{self.apart}{'w' if self.wide else ''}{'s' if self.several else ''}"


STEPS = {64: (8, 8), 128: (8, 16), 256: (16, 16), 512: (16, 32)}
"""Bytes of a lane, and how the functions for so many steps call one another."""

_HUFFMAN = """
a = Constant<value = int32[8] {128, 64, 32, 16, 8, 4, 2, 1}>()
c = Constant<value = int64[2] {-1, 1}>()
d = Cast<to: int = 6>(f)
g = Reshape(d, c)
h = Div(g, a)
j = Constant<value = int32 {2}>()
k = Mod(h, j)
l = Constant<value = int64[1] {-1}>()
b = Reshape(k, l)
o = Constant<value = int32 {0}>()
m = CumSum(b, o)
p = Mul(m, b)
r = Constant<value = int32 {1}>()
s = Sub(r, b)
t = CumSum(s, o)
u = Mul(t, s)"""

_NUMERALS = """
l = Constant<value = int64[1] {-1}>()
a = Constant<value = int64[1] {0}>()
b = Constant<value = int64 {-1}>()
o = Constant<value = int64 {0}>()
r = Constant<value = int64 {1}>()
c = Constant<value = int64 {2}>()
F = Slice(f, a, l)
K = Gather(f, b)
C = CumSum(F, o)
L = Gather(C, b)
i = Range(o, L, r)
h = Constant<value = int64[2] {-1, 1}>()
d = Reshape(i, h)
g = Less(d, C)
j = Cast<to: int = 6>(g)
s = ArgMax<axis: int = 1, keepdims: int = 0>(j)
k = Add(F, F)
m = Sub(k, C)
n = Gather(m, s)
V = Add(i, n)
t = Add(V, V)
G = Add(t, r)
H = Constant<value = int64 {1048576}>()
I = Mul(G, H)
J = Gather(F, s)
M = Div(I, J)
O = Reshape(L, l)
Z, N = TopK<largest: int = 0>(M, O)
A = Gather(s, N)
B = Gather(V, N)
D = Shape(F)
S = Add(A, r)
e = Equal(S, D)
Pa = Where(e, L, B)
Pb = Sub(Pa, r)
Ua = Where(e, a, S)
Q = Add(K, K)
R = Range(c, Q, r)
U = Less(R, K)
W = Sub(L, c)
Wa = Add(R, W)
Pc = Where(U, Wa, a)
X = Sub(R, K)
Xa = Add(X, D)
Ub = Where(U, a, Xa)
Y = Sub(L, r)
Pd = Range(r, Y, r)
Uc = Mul(Pd, o)
Pe = Concat<axis: int = 0>(Pd, Pb, Pc)
Ue = Concat<axis: int = 0>(Uc, Ua, Ub)
p = Cast<to: int = 6>(Pe)
u = Cast<to: int = 6>(Ue)"""

_BITS = """
q = Constant<value = int64[2] {-1, 2}>()
N0 = Reshape(p, q)
v = Constant<value = int64[3] {-1, 2, 1}>()
E0 = Reshape(u, v)
w = Constant<value = int64[2] {0, -1}>()
x = Constant<value = int64[4] {0, 0, 1, -1}>()"""

_COMPOSE = """
P{i} = Gather(N{h}, N{h})
N{i} = Reshape(P{i}, w)
Q{i} = Gather(E{h}, N{h})
R{i} = Reshape(E{h}, x)"""
_MERGE = """
C{i} = Add(R{i}, Q{i})"""
_JOIN = """
X{i} = Shape(Q{i})
Y{i} = Expand(R{i}, X{i})
C{i} = Concat<axis: int = 3>(Y{i}, Q{i})"""
_SHAPE = """
Z{i} = Constant<value = {shape}>()
E{i} = Reshape(C{i}, Z{i})"""
_TABLES = """
y = Constant<value = int32 {256}>()
z = Mul(N3, y)
TABLE = Reshape(z, l)
E = Cast<to: int = TYPE>(E3)"""
_OF_SEVERAL = """
T = Add(Ta, Ba)
Tb = Shape(Ta)
Tc = Cast<to: int = 6>(Tb)
Bb = Add(Ba, Tc)
Bx = Expand(Ba, Bc)"""


@cache
def tables(opset: int, kind: Kind, numerals: bool) -> onnx.FunctionProto:
    """The function (description) → (transitions [S·256], emitted [S·256, 8/apart]).

    Of several decoders: (description, [lanes, 1], n) → (transitions, emitted, n [lanes, 1], m), its
    states being numbered from n/256 on, those of the next one from m/256 on; n and m are int32 [1].

    Args:
        opset: version of the standard operators.
        kind: of the decoder.
        numerals: the description is of `Numerals`, else of a `Code`.
    """
    body = (_NUMERALS if numerals else _HUFFMAN) + _BITS
    for i in (1, 2, 3):
        merges = 1 << i <= kind.apart
        shape = (
            f"int64[2] {{-1, {8 // kind.apart}}}"
            if i == 3
            else f"int64[3] {{0, {4 ** (1 << i >> 1)}, -1}}"
        )
        for part in (_COMPOSE, _MERGE if merges else _JOIN):
            body += part.format(i=i, h=i - 1)
        body += _SHAPE.replace("{i}", str(i)).replace("{shape}", shape)
    body += _TABLES.replace("TYPE", "4" if kind.wide else "2")
    body = body.replace("TABLE", "Ta") + _OF_SEVERAL if kind.several else body.replace("TABLE", "T")
    name = f"{'numerals' if numerals else 'huffman'}{kind.suffix}"
    signature = f"{name} (f, Bc, Ba) => (T, E, Bx, Bb)" if kind.several else f"{name} (f) => (T, E)"
    return decoder(opset, signature, body)


@cache
def run(opset: int, steps: int) -> tuple[onnx.FunctionProto, ...]:
    """The functions (x, b [lanes, steps], T) → (y [lanes, 1], i [lanes, steps]), inner ones first.

    Args:
        opset: version of the standard operators.
        steps: a key of `STEPS`, or a factor of it.
    """
    functions: list[onnx.FunctionProto] = []
    done = 1
    for factor in STEPS[steps]:
        inner = f"onnxrd.run{done}" if functions else ""
        done *= factor
        functions.append(_run(opset, f"run{done}", factor, inner))
    return tuple(functions)


def _run(opset: int, name: str, factor: int, inner: str) -> onnx.FunctionProto:
    """The function that takes `factor` steps, or calls of an inner function, one by one."""
    parts = [f"b{i}" for i in range(factor)]
    count = f", num_outputs: int = {factor}" if opset >= 18 else ""
    body = "" if inner else "B = Cast<to: int = 6>(b)\n"
    body += f"{', '.join(parts)} = Split<axis: int = 1{count}>({'b' if inner else 'B'})\n"
    states = ["x", *(f"x{i}" for i in range(1, factor)), "y"]
    for i, (state, after) in enumerate(pairwise(states)):
        if inner:
            body += f"{after}, i{i} = {inner}({state}, b{i}, T)\n"
        else:
            body += f"i{i} = Add({state}, b{i})\n{after} = Gather(T, i{i})\n"
    body += f"i = Concat<axis: int = 1>({', '.join(f'i{k}' for k in range(factor))})"
    return decoder(opset, f"{name} (x, b, T) => (y, i)", body)


_WALK = """
e = Gather(E, i)
c = Cast<to: int = 9>(e)
l = Constant<value = int64[1] {-1}>()
k = Reshape(c, l)
s = Compress(e, k)"""


@cache
def unpack(opset: int, steps: int, kind: Kind, numerals: bool) -> tuple[onnx.FunctionProto, ...]:
    """The function (lanes [lanes, steps], …) → symbols [m], from 1; those it calls come first.

    Its other input is a description. Of several decoders it is transitions, emitted, and the states
    [lanes, 1] that lanes begin in.

    Args:
        opset: version of the standard operators.
        steps: bytes of a lane, a key of `STEPS`.
        kind: of the decoder.
        numerals: see `tables`; of several decoders it does not matter.
    """
    if kind.several:
        body = f"y, i = onnxrd.run{steps}(x, b, T){_WALK}"
        walk = decoder(opset, f"several{steps} (b, T, E, x) => (s)", body)
        return (*run(opset, steps), walk)
    start = tables(opset, kind, numerals)
    body = f"""
T, E = onnxrd.{start.name}(f)
x = Constant<value = int32[1] {{0}}>()
y, i = onnxrd.run{steps}(x, b, T){_WALK}"""
    walk = decoder(opset, f"{start.name}_{steps} (b, f) => (s)", body)
    return (start, *run(opset, steps), walk)


@cache
def expand(opset: int) -> onnx.FunctionProto:
    """The function (symbols [m], runs [A+1, d]) → codes [m·d]."""
    body = """
i = Cast<to: int = 6>(s)
r = Gather(t, i)
l = Constant<value = int64[1] {-1}>()
c = Reshape(r, l)"""
    return decoder(opset, "expand (s, t) => (c)", body)


_TYPES = {"float16": (1, "16"), "bfloat16": (1, "b16"), "float32": (1, ""), "float64": (11, "64")}
"""What to multiply in (onnxruntime lacks half precision on CPUs), and how to name the function."""

_HALF = {"float16": 10, "bfloat16": 16}

_TAPS = ", ".join("1" if delay in WINDOW else "0" for delay in range(PERIOD)[::-1])
_TRELLIS = (
    """
E = Cast<to: int = 3>(q)
a = Constant<value = int8 {2}>()
b = Mod(E, a)
c = Cast<to: int = 2>(b)
e = Constant<value = int64[3] {1, 1, -1}>()
f = Reshape(c, e)
g = Constant<value = uint8[1, 1, PERIOD] {TAPS}>()
h = ConvInteger<pads: ints = [LAST, 0]>(f, g)
i = Constant<value = int64[2] {-1, PERIOD}>()
j = Reshape(h, i)
k = Constant<value = int32 {0}>()
L = CumSum(j, k)
m = Constant<value = int32 {2}>()
n = Mod(L, m)
o = Cast<to: int = 9>(n)
y = Constant<value = int64[1] {-1}>()
p = Reshape(o, y)
A = Constant<value = int64[1] {0}>()
B = ReduceProd(s)
r = Slice(p, A, B)
t = Slice(E, A, B)
""".replace("TAPS", _TAPS)
    .replace("PERIOD", str(PERIOD))
    .replace("LAST", str(PERIOD - 1))
)
_STRAIGHT = """
u = Reshape(r, s)
v = Reshape(t, s)
"""
_TURNED = """
J = Constant<value = int64[1] {1}>()
K = Slice(s, A, J)
M = Concat<axis: int = 0>(y, K)
N = Reshape(r, M)
O = Transpose<perm: ints = [1, 0]>(N)
u = Reshape(O, s)
P = Reshape(t, M)
Q = Transpose<perm: ints = [1, 0]>(P)
v = Reshape(Q, s)
"""
_UNITS = """
x = Cast<to: int = 1>(v)
z = Constant<value = float {-0.5}>()
C = Constant<value = float {0}>()
F = Clip(x, z, C)
H = Sub(x, F)
R = Neg(d)
D = Where(u, R, d)
"""


@cache
def scale(opset: int, dtype: str) -> onnx.FunctionProto:
    """The function (codes [n], step, shape) → weight: step · code, rounded."""
    to, suffix = _TYPES[dtype]
    body = f"r = Reshape(q, s)\nf = Cast<to: int = {to}>(r)\n" + _product("f", dtype)
    return decoder(opset, f"scale{suffix} (q, d, s) => (w)", body)


@cache
def trellis(opset: int, dtype: str, *, turned: bool) -> onnx.FunctionProto:
    """The function (codes [31⌈n/31⌉], step, shape) → weight, see `onnxrd.quantizers.trellis`."""
    to, suffix = _TYPES[dtype]
    body, units = _TRELLIS + (_TURNED if turned else _STRAIGHT) + _UNITS, "H"
    if dtype == "float64":
        body, units = f"{body}I = Cast<to: int = {to}>(H)\n", "I"
    name = f"{'turned' if turned else 'trellis'}{suffix}"
    return decoder(opset, f"{name} (q, d, s) => (w)", body + _product(units, dtype, "D"))


def _product(units: str, dtype: str, step: str = "d") -> str:
    """Units times steps, in the type of the weight."""
    if dtype not in _HALF:
        return f"w = Mul({units}, {step})"
    return f"G = Mul({units}, {step})\nw = Cast<to: int = {_HALF[dtype]}>(G)"


@cache
def level(opset: int) -> onnx.FunctionProto:
    """The function (codes [n], levels [L], shape) → weight; codes below 0 count from the end."""
    body = "r = Reshape(q, s)\ni = Cast<to: int = 6>(r)\nw = Gather(l, i)"
    return decoder(opset, "level (q, l, s) => (w)", body)
