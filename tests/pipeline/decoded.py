"""What a stock onnxruntime makes of a written model."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper


def weights_of(path, names):
    """The weights of that name, decoded by onnxruntime itself: name → array."""
    model = onnx.load(path)
    kept = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    missing = [name for name in names if name not in kept]
    for name in missing:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    feeds = {
        i.name: np.zeros([d if isinstance(d, int) else 1 for d in i.shape], np.float32)
        for i in session.get_inputs()
    }
    return {n: kept[n] for n in names if n in kept} | dict(
        zip(missing, session.run(missing, feeds) if missing else [])
    )


def outputs_of(path, feeds):
    """All outputs, by a session as anybody would open it."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)
