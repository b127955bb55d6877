"""Run an ONNX graph in torch: an oracle for gradients, for the operators of plain CNNs and MLPs."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

Tensors = dict[str, torch.Tensor]


def torch_graph(
    path: Path,
) -> tuple[Callable[[Mapping[str, torch.Tensor], torch.Tensor], torch.Tensor], Tensors]:
    """(function of (weights, batch) → first output, all floating-point initializers)."""
    model = _folded(path)
    constants = {i.name: numpy_helper.to_array(i).copy() for i in model.graph.initializer}
    floats = {k: torch.from_numpy(v) for k, v in constants.items() if v.dtype.kind == "f"}
    (name,) = (i.name for i in model.graph.input if i.name not in constants)

    def run(weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        values = {**constants, **floats, **weights, name: x}
        for node in model.graph.node:
            inputs = [values[i] if i else None for i in node.input]
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            values[node.output[0]] = _OPERATORS[node.op_type](*inputs, **attributes)
        return values[model.graph.output[0].name]

    return run, floats


def _folded(path: Path) -> onnx.ModelProto:
    """The model with its shape arithmetic folded away by onnxruntime."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = f"{folder}/folded.onnx"
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def _conv(x, w, b=None, *, pads=(0, 0, 0, 0), strides=(1, 1), dilations=(1, 1), group=1, **_):
    assert list(pads[:2]) == list(pads[2:])
    return functional.conv2d(x, w, b, strides, tuple(pads[:2]), dilations, group)


def _gemm(a, b, c=None, *, transA=0, transB=0, alpha=1.0, beta=1.0):
    product = alpha * (a.T if transA else a) @ (b.T if transB else b)
    return product if c is None else product + beta * c


def _pad(x, pads, value=None, **_):
    pairs = np.asarray(pads).reshape(2, -1).T[::-1].reshape(-1)
    return functional.pad(x, pairs.tolist())


def _slice(x, starts, ends, axes, steps):
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(
        *(np.asarray(v).tolist() for v in (starts, ends, axes, steps))
    ):
        index[axis] = slice(start, min(end, x.shape[axis]), step)
    return x[tuple(index)]


_OPERATORS = {
    "Conv": _conv,
    "Gemm": _gemm,
    "Pad": _pad,
    "Slice": _slice,
    "Relu": torch.relu,
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Flatten": lambda x, axis=1: x.flatten(axis),
    "Reshape": lambda x, shape, **_: x.reshape(shape.tolist()),
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "MaxPool": lambda x, *, kernel_shape, strides, **_: functional.max_pool2d(
        x, kernel_shape, strides
    ),
}
