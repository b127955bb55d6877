"""Importance by brute force: central differences through onnxruntime, one weight at a time."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Compared:
    """An output and what it holds, for samples along axis 0."""

    name: str = "y"
    task: str = "logits"  # or probabilities, or values
    temperature: float = 1.0
    axis: int = -1  # of the classes
    flat: bool = False  # all axes behind the first are one distribution


class Network:
    """A network as a function of one of its weights, without any optimization.

    Args:
        path: of the model.
        name: of the weight.
        double: compute in float64 (not all operators can).
    """

    def __init__(self, path, name, *, double=False):
        model = onnx.load(path)
        (tensor,) = [t for t in model.graph.initializer if t.name == name]
        self.weight = numpy_helper.to_array(tensor).copy()
        model.graph.initializer.remove(tensor)
        info = helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
        self.dtype = np.float32
        if double:
            self.dtype, self.weight = np.float64, self.weight.astype(np.float64)
            _widen(model)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(model.SerializeToString(), options)
        self._name = name

    def __call__(self, feeds, flat, step, outputs):
        """Some outputs, with one entry of the weight moved by a step."""
        moved = self.weight.copy()
        moved.reshape(-1)[flat] += step
        feeds = {k: v.astype(self.dtype) if v.dtype.kind == "f" else v for k, v in feeds.items()}
        found = self._session.run(outputs, {**feeds, self._name: moved})
        return [array.astype(np.float64) for array in found]


def importance(path, name, feeds, flats, *, heads=None, step=2e-3, double=False):
    """Σ over heads of E_x [mean over positions] Σ_k f_k (∂ log f_k)², or of 2 E_x Σ_k (∂f_k)².

    Args:
        flats: the entries asked for.
        step: of the differences, absolute.

    Returns: [len(flats)].
    """
    network = Network(path, name, double=double)
    found = []
    for flat in flats:
        heads = heads or [Compared()]
        ends = [network(feeds, flat, s, [h.name for h in heads]) for s in (step, -step)]
        found.append(sum(_information(h, a, b, step) for h, a, b in zip(heads, *ends)))
    return np.array(found)


def _information(head, ahead, back, step):
    if head.task == "values":
        return 2 * (((ahead - back) / (2 * step)) ** 2).reshape(len(ahead), -1).sum(1).mean()
    if head.flat:
        ahead, back = (z.reshape(len(z), -1) for z in (ahead, back))
    ahead, back = (np.moveaxis(z, head.axis, -1) for z in (ahead, back))
    if head.task == "logits":
        ahead, back = (_log_softmax(z / head.temperature) for z in (ahead, back))
    else:
        ahead, back = np.log(ahead), np.log(back)
    slope = (ahead - back) / (2 * step)
    return (np.exp((ahead + back) / 2) * slope**2).sum(-1).mean()


def _log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def _widen(model):
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            wide = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for info in (*model.graph.input, *model.graph.output):
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
