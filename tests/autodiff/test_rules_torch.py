"""The same cases against torch's autograd, where torch says the same thing in a line."""

import inspect

import numpy as np
import pytest

from tests.autodiff.cases import CASES
from tests.autodiff.test_rules import gradients_of, sharpest

torch = pytest.importorskip("torch")
F = torch.nn.functional


def per_rank(name, x, *inputs, **options):
    """The function of this name for as many spatial axes as x has."""
    return getattr(F, f"{name}{x.ndim - 2}d")(x, *inputs, **options)


def halves(pads, rank):
    """Symmetric padding as torch takes it."""
    pads = pads or [0] * (2 * rank)
    if pads[:rank] != pads[rank:]:
        raise NotImplementedError
    return pads[:rank]


def conv(x, w, b=None, *, pads=None, strides=1, dilations=1, group=1, kernel_shape=None):
    pads = halves(pads, x.ndim - 2)
    return per_rank("conv", x, w, b, stride=strides, padding=pads, dilation=dilations, groups=group)


def conv_transpose(x, w, b=None, *, pads=None, strides=1, dilations=1, group=1, output_padding=0):
    pads = halves(pads, x.ndim - 2)
    return per_rank(
        "conv_transpose", x, w, b, strides, pads, output_padding, group, dilation=dilations
    )


def max_pool(x, *, kernel_shape, strides=1, pads=None, dilations=1):
    pads = halves(pads, x.ndim - 2)
    return per_rank("max_pool", x, kernel_shape, strides, pads, dilations)


def average_pool(x, *, kernel_shape, strides=1, pads=None, count_include_pad=0):
    pads, count = halves(pads, x.ndim - 2), bool(count_include_pad)
    return per_rank("avg_pool", x, kernel_shape, strides, pads, count_include_pad=count)


def gemm(a, b, c=0, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    return alpha * (a.T if transA else a) @ (b.T if transB else b) + beta * c


def layer_norm(x, w, b=None, *, axis=-1, epsilon=1e-5):
    shape = x.shape[axis:]
    b = b if b is None else b.expand(shape)
    return F.layer_norm(x, shape, w.expand(shape), b, epsilon)


def reduction(function):
    def reduce(x, *, axes=None, keepdims=1):
        return function(x, tuple(axes or range(x.ndim)), bool(keepdims))

    return reduce


def interpolate(x, roi, scales, *, mode="nearest", coordinate_transformation_mode="half_pixel"):
    corners = {"half_pixel": False, "align_corners": True}.get(coordinate_transformation_mode)
    if mode == "nearest" or corners is None or set(scales.tolist()) != {1.0, 2.0}:
        raise NotImplementedError
    kind = {"linear": "bilinear", "cubic": "bicubic"}[mode]
    return F.interpolate(x, scale_factor=scales[2:].tolist(), mode=kind, align_corners=corners)


FUNCTIONS = {
    "Relu": torch.relu,
    "LeakyRelu": lambda x, alpha=0.01: F.leaky_relu(x, alpha),
    "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    "Elu": lambda x, alpha=1.0: F.elu(x, alpha),
    "Celu": lambda x, alpha=1.0: F.celu(x, alpha),
    "Selu": lambda x: F.selu(x),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: torch.clamp(alpha * x + beta, 0, 1),
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Gelu": lambda x, approximate="none": F.gelu(x, approximate=approximate),
    "Swish": lambda x, alpha=1.0: x * torch.sigmoid(alpha * x),
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Reciprocal": torch.reciprocal,
    **{f.capitalize(): getattr(torch, f) for f in ("sigmoid", "tanh", "exp", "log", "sqrt", "erf")},
    **{f.capitalize(): getattr(torch, f) for f in ("sin", "cos", "tan", "asin", "acos", "atan")},
    **{f.capitalize(): getattr(torch, f) for f in ("sinh", "cosh", "asinh", "acosh", "atanh")},
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Pow": torch.pow,
    "Where": torch.where,
    "MatMul": torch.matmul,
    "Gemm": gemm,
    "Einsum": lambda *inputs, equation: torch.einsum(equation, *inputs),
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "Softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "LogSoftmax": lambda x, axis=-1: torch.log_softmax(x, axis),
    "LayerNormalization": layer_norm,
    "RMSNormalization": lambda x, w, axis=-1, epsilon=1e-5: F.rms_norm(
        x, x.shape[axis:], w, epsilon
    ),
    "InstanceNormalization": lambda x, w, b, epsilon=1e-5: F.instance_norm(
        x, weight=w, bias=b, eps=epsilon
    ),
    "LRN": lambda x, size, alpha=1e-4, beta=0.75, bias=1.0: F.local_response_norm(
        x, size, alpha, beta, bias
    ),
    "ReduceSum": reduction(torch.sum),
    "ReduceMean": reduction(torch.mean),
    "ReduceMax": reduction(torch.amax),
    "ReduceMin": reduction(torch.amin),
    "ReduceLogSumExp": reduction(torch.logsumexp),
    "ReduceL2": reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "Resize": interpolate,
}

OLD_FORMS = {"Softmax": 13, "LogSoftmax": 13}


def understood(case):
    """Whether torch's function has all inputs and attributes of the case."""
    if case.op not in FUNCTIONS or case.domain or case.opset < OLD_FORMS.get(case.op, 0):
        return False
    try:
        inspect.signature(FUNCTIONS[case.op]).bind(*case.inputs, **case.attributes)
    except TypeError:
        return False
    except ValueError:  # no signature
        return not case.attributes
    return True


@pytest.mark.parametrize("case", [*filter(understood, CASES)], ids=str)
def test_gradients_match_torch(case):
    case, precision = sharpest(case)
    inputs = [None if v is None else torch.tensor(np.asarray(v)) for v in case.inputs]
    inputs = [v.double() if v is not None and v.is_floating_point() else v for v in inputs]
    for slot in case.differentiable:
        inputs[slot].requires_grad_()
    try:
        output = FUNCTIONS[case.op](*inputs, **case.attributes)
    except NotImplementedError:
        pytest.skip("torch has no such thing")
    seed = np.random.default_rng(7).standard_normal(output.shape)
    output.backward(torch.tensor(seed))
    found, dtype = gradients_of(case, {"o0": seed}, computed=True)
    allowed = 1e-7 if precision == dtype == np.float64 else 1e-5
    for slot in case.differentiable:
        expected = inputs[slot].grad.numpy()
        difference = np.linalg.norm(found[slot] - expected)
        assert difference <= allowed * (np.linalg.norm(expected) + 1), slot
