"""What the two training scripts share: the training loop, and the way a network is written."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
HERE = Path(__file__).resolve().parent
INPUT, OUTPUT, OPSET, IR_VERSION = "input", "logits", 17, 8


def arguments(description: str | None, epochs: int) -> argparse.Namespace:
    """The command line: where the data are, and how long to train."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="path of the data set")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def fit(
    network: torch.nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    augment: Callable[[torch.Tensor], torch.Tensor],
    *,
    epochs: int,
    rate: float,
    batch: int = 128,
) -> None:
    """Train with SGD, momentum, weight decay and one cycle of the learning rate.

    Args:
        network: trained in place.
        images: [N, …] uint8, as the network takes them once cast to float32.
        labels: [N].
        augment: changes a batch of images at random.
        epochs: passes over the images.
        rate: highest learning rate.
        batch: images a step.
    """
    decay = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    steps = -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    network.train()
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(images)).split(batch):
            outputs = network(augment(images[chosen].float()))
            loss = torch.nn.functional.cross_entropy(outputs, labels[chosen], label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(images):.4f}", flush=True)
    network.eval()


def write(
    name: str,
    nodes: list[onnx.NodeProto],
    weights: dict[str, Array],
    sample: tuple[int, ...],
    calibration: tuple[Array, Array],
    evaluation: tuple[Array, Array],
    about: str,
) -> float:
    """Write `NAME.onnx`, `NAME_calib.npz` and `NAME_eval.npz`; return the accuracy on the latter.

    Args:
        name: of the network.
        nodes: from the value "input" to the value "logits".
        weights: initializers by name.
        sample: shape of one input.
        calibration: (images, labels), training samples.
        evaluation: (images, labels), test samples.
        about: goes into the model's metadata.
    """
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *sample])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.ascontiguousarray(w), n) for n, w in weights.items()],
    )
    model = helper.make_model(
        graph,
        producer_name="onnxrd models",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, {"training": about})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, HERE / f"{name}.onnx")
    for part, (images, labels) in (("calib", calibration), ("eval", evaluation)):
        arrays = {INPUT: images.astype(np.float32), "labels": labels.astype(np.int64)}
        np.savez_compressed(HERE / f"{name}_{part}.npz", allow_pickle=False, **arrays)
    return accuracy(name, *evaluation)


def accuracy(name: str, images: Array, labels: Array) -> float:
    """Share of images that the written network gets right, run by onnxruntime."""
    session = ort.InferenceSession(HERE / f"{name}.onnx", providers=["CPUExecutionProvider"])
    predictions = [
        session.run(None, {INPUT: images[start : start + 500].astype(np.float32)})[0].argmax(axis=1)
        for start in range(0, len(images), 500)
    ]
    return float((np.concatenate(predictions) == labels).mean())
