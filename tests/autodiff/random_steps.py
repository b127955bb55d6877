"""The steps that random networks are made of: how an operator is put behind an activation."""

import numpy as np

from tests.autodiff.random_networks import step

SMOOTH = ("Atan", "Cos", "Elu", "Erf", "Gelu", "Identity", "Mish", "Neg", "Selu", "Sigmoid")
SMOOTH += ("Sin", "Softplus", "Softsign", "Tanh")
KINKED = ("Abs", "Celu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "ThresholdedRelu")


@step(*SMOOTH, *KINKED)
def unary(b, x, shape, op):
    b.node(op, x)


@step("Exp", "Sinh", "Cosh", "Tan", "Asinh", "Asin", "Atanh", "Acos")
def bounded(b, x, shape, op):
    """Operators that grow fast, or take numbers between −1 and 1."""
    b.node(op, b.node("Mul", b.node("Tanh", x), b.weight(low=0.2)))


@step("Sqrt", "Log", "Reciprocal", "Acosh")
def positive(b, x, shape, op):
    b.node(op, b.node("Add", b.node("Softplus", x), b.weight(low=1.1)))


@step("Clip", "Shrink")
def cut(b, x, shape, op):
    if op == "Clip":
        b.node(op, x, b.constant(-0.7, np.float32), b.constant(0.9, np.float32))
    else:
        b.node(op, x, lambd=0.3, bias=b.one_of(0.0, 0.2))


def stretching(b, shape):
    """A shape that broadcasts to that of an activation, without its samples."""
    kept = [n if b.one_of(True, False) else 1 for n in shape[1:]]
    return kept[b.one_of(*range(len(kept) + 1)) :]


@step("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean")
def with_weight(b, x, shape, op):
    pair = [x, b.weight(*stretching(b, shape))]
    b.node(op, *(pair if b.one_of(True, False) else reversed(pair)))


@step("Div", "Mod")
def divided(b, x, shape, op):
    b.node(op, x, b.weight(*stretching(b, shape), low=0.7), **({"fmod": 1} if op == "Mod" else {}))


@step("Pow")
def power(b, x, shape, op):
    base = b.node("Add", b.node("Sigmoid", x), b.weight(low=0.5))
    b.node(op, base, b.weight(*stretching(b, shape)))


@step("PRelu")
def prelu(b, x, shape, op):
    b.node(op, x, b.weight(shape[1], *[1] * (len(shape) - 2), low=0.2))


@step("Add", "Sub", "Mul", "Div", "Max", "Min")
def skip(b, x, shape, op):
    """Two activations."""
    other = b.alike(shape)
    if op == "Div":
        other = b.node("Add", b.node("Sigmoid", other), b.weight(low=0.5))
    b.node(op, x, other)


@step("Where")
def where(b, x, shape, op):
    condition = np.random.default_rng(b.seed).random(shape[1:]) < 0.5
    pair = [x, b.weight(*shape[1:])]
    b.node(op, b.constant(condition, bool), *(pair if b.one_of(True, False) else reversed(pair)))


@step("MatMul", "Gemm", "Einsum")
def linear(b, x, shape, op):
    units = b.one_of(1, 3, 4)
    if op == "MatMul":
        b.node(op, x, b.weight(shape[-1], units))
    elif op == "Einsum" and len(shape) == 3:
        b.node(op, x, b.weight(units, shape[-1]), equation="ntc,dc->ntd")
    elif op == "Gemm" and len(shape) == 2:
        turned = b.one_of(0, 1)
        weight = b.weight(*((units, shape[1]) if turned else (shape[1], units)))
        b.node(op, x, weight, b.weight(*b.one_of((units,), (1,), (1, units))), transB=turned)


@step("MatMul")
def attention(b, x, shape, op):
    """Softmax(x xᵀ) x, for sequences."""
    if len(shape) == 3:
        turned = b.node("Transpose", x, perm=[0, 2, 1])
        b.node(op, b.node("Softmax", b.node(op, x, turned), axis=-1), x)


@step("Conv", "ConvTranspose")
def convolution(b, x, shape, op):
    if len(shape) < 3:
        return
    channels, axes = shape[1], len(shape) - 2
    group = b.one_of(1, *(g for g in (2, channels) if channels % g == 0))
    out = group * b.one_of(1, 2)
    kernel = [min(b.one_of(1, 2, 3), n) for n in shape[2:]]
    sizes = (channels, out // group) if op == "ConvTranspose" else (out, channels // group)
    extra = [b.weight(out)] if b.one_of(True, False) else []
    pad = b.one_of(0, 1) if min(kernel) > 1 else 0
    strides = [b.one_of(1, 2)] * axes
    b.node(
        op,
        x,
        b.weight(*sizes, *kernel),
        *extra,
        group=group,
        pads=[pad] * 2 * axes,
        strides=strides,
    )


@step("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool")
def pooling(b, x, shape, op):
    if len(shape) < 3:
        return
    if op.startswith("Global"):
        b.node(op, x)
        return
    sizes = {"kernel_shape": [min(2, n) for n in shape[2:]]}
    b.node(op, x, **sizes, strides=[b.one_of(1, 2)] * (len(shape) - 2))


@step("Softmax", "LogSoftmax", "LpNormalization")
def normalised(b, x, shape, op):
    b.node(op, x, axis=b.one_of(*range(1, len(shape))))


@step("LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization")
def standardised(b, x, shape, op):
    if op == "LayerNormalization":
        axis = b.one_of(*range(1, len(shape)))
        size = shape[axis:]
        b.node(op, x, b.weight(*size), b.weight(*size), axis=axis, epsilon=1e-2)
        return
    channels = shape[1]
    scale, bias = b.weight(channels), b.weight(channels)
    if op == "BatchNormalization":
        mean = b.constant(np.linspace(-1, 1, channels), np.float32)
        b.node(op, x, scale, bias, mean, b.constant(np.full(channels, 0.7), np.float32))
    elif len(shape) > 2 and op == "InstanceNormalization":
        b.node(op, x, scale, bias, epsilon=1e-2)
    elif len(shape) > 2 and op == "GroupNormalization":
        groups = b.one_of(*(g for g in (1, 2, channels) if channels % g == 0))
        b.node(op, x, scale, bias, num_groups=groups, epsilon=1e-2)


@step("LRN")
def local_response(b, x, shape, op):
    if len(shape) == 4:
        b.node(op, x, size=3, alpha=0.5)


@step("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
@step("ReduceLogSumExp", "ReduceSumSquare", "ReduceProd")
def reduction(b, x, shape, op):
    axes = [a for a in range(1, len(shape)) if b.one_of(True, False)] or [len(shape) - 1]
    keep = len(axes) == len(shape) - 1 or b.one_of(True, False)
    b.node(op, x, b.constant(axes), keepdims=int(keep))


@step("Transpose")
def transpose(b, x, shape, op):
    b.node(op, x, perm=[0, *b.order(range(1, len(shape)))])


@step("Reshape", "Flatten", "Unsqueeze", "Squeeze")
def reshape(b, x, shape, op):
    if op == "Reshape":
        b.node(op, x, b.constant([0, *reversed(shape[1:])]))
    elif op == "Flatten":
        b.node(op, x)
    elif op == "Unsqueeze" and len(shape) < 4:
        b.node(op, x, b.constant([b.one_of(*range(1, len(shape) + 1))]))
    elif op == "Squeeze" and 1 in shape[2:]:
        b.node(op, x, b.constant([shape.index(1, 2)]))


@step("Slice", "Pad", "Tile", "Expand")
def cropped(b, x, shape, op):
    axis = b.one_of(*range(1, len(shape)))
    if op == "Slice" and shape[axis] > 1:
        ends = b.one_of(
            ([0], [-1], [axis], [1]), ([-1], [-9], [axis], [-1]), ([1], [9], [axis], [2])
        )
        b.node(op, x, *map(b.constant, ends))
    elif op == "Pad":
        pads = [0] * 2 * len(shape)
        pads[axis], pads[axis + len(shape)] = 1, b.one_of(0, 1)
        modes = ["constant", "edge", *(["reflect"] if shape[axis] > 2 else [])]
        b.node(op, x, b.constant(pads), mode=b.one_of(*modes))
    elif op == "Tile":
        b.node(op, x, b.constant([2 if a == axis else 1 for a in range(len(shape))]))
    elif op == "Expand":
        b.node(op, x, b.constant([3 if n == 1 and a else n for a, n in enumerate(shape)]))


@step("Concat")
def joined(b, x, shape, op):
    b.node(op, x, b.alike(shape), axis=b.one_of(*range(1, len(shape))))


@step("Gather", "GatherElements", "ReverseSequence", "Trilu", "CumSum", "TopK", "DepthToSpace")
def moved(b, x, shape, op):
    axis = b.one_of(*range(1, len(shape)))
    n = shape[axis]
    if op == "Gather":
        b.node(
            op, x, b.constant(b.one_of([0, -1, 0], n - 1 if len(shape) > 2 else [n - 1])), axis=axis
        )
    elif op == "GatherElements":
        index = np.random.default_rng(b.seed).integers(-n, n, shape)
        b.node(op, x, b.constant(index), axis=axis)
    elif op == "ReverseSequence":
        b.node(op, x, b.constant([1, shape[1], shape[1]]), batch_axis=0, time_axis=1)
    elif op == "Trilu" and len(shape) > 2:
        b.node(op, x, b.constant(b.one_of(-1, 0, 1)), upper=b.one_of(0, 1))
    elif op == "CumSum":
        flags = {"exclusive": b.one_of(0, 1), "reverse": b.one_of(0, 1)}
        b.node(op, x, b.constant(axis), **flags)
    elif op == "TopK":
        b.node(op, x, b.constant([max(1, n - 1)]), axis=axis, outputs=2)
    elif op == "DepthToSpace" and len(shape) == 4 and shape[1] % 4 == 0:
        b.node(op, x, blocksize=2, mode=b.one_of("DCR", "CRD"))


@step("Resize")
def resized(b, x, shape, op):
    if len(shape) == 4:
        height = b.one_of(2, *([0.5] if shape[2] > 1 else []))
        scales = b.constant([1, 1, height, 2], np.float32)
        b.node(op, x, "", scales, mode=b.one_of("nearest", "linear"))


@step("LSTM", "GRU", "RNN")
def recurrent(b, x, shape, op):
    """[N, T, C] → [N, T·directions, H]."""
    if len(shape) != 3:
        return
    gates, units = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2
    both = b.one_of(False, True)
    count = 2 if both else 1
    weights = [b.weight(count, gates * units, n) for n in (shape[2], units)]
    weights.append(b.weight(count, 2 * gates * units))
    turned = b.node("Transpose", x, perm=[1, 0, 2], offer=False)
    direction = "bidirectional" if both else b.one_of("forward", "reverse")
    out = b.node(op, turned, *weights, offer=False, hidden_size=units, direction=direction)
    back = b.node("Transpose", out, perm=[2, 0, 1, 3])
    b.node("Reshape", back, b.constant([0, -1, units]))
