"""Train cifar10_cnn.onnx: five convolutions and three fully connected layers for CIFAR-10.

--data is a tar archive with the images as train/CLASS/NUMBER.jpg and test/CLASS/NUMBER.jpg, 32 × 32
pixels; the classes in alphabetical order are the labels 0 to 9.
"""

import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import torch
from common import INPUT, OUTPUT, Array, arguments, fit, write
from onnx import helper
from PIL import Image
from torch import nn

MEAN, DEVIATION = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
CHANNELS = (3, 32, 64, 128, 256, 256)
POOLED = (1, 2, 3)
"""Convolutions (counted from 1) that are followed by 2 × 2 max pooling."""
HIDDEN = (4096, 256, 256, 10)


class Network(nn.Module):
    """Pixels 0..255 [N, 3, 32, 32] → logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("scale", 1 / torch.tensor(DEVIATION).reshape(1, 3, 1, 1))
        pairs = list(itertools.pairwise(CHANNELS))
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(HIDDEN))
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network."""
        x = ((x - self.mean) * self.scale).contiguous(memory_format=torch.channels_last)
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms), 1):
            x = norm(convolution(x)).relu()
            if number in POOLED:
                x = nn.functional.max_pool2d(x, 2)
        x = x.flatten(1)
        for layer in self.linear[:-1]:
            x = self.dropout(layer(x).relu())
        return self.linear[-1](x)


def main() -> None:
    """Train, write, and print the accuracy on all test images."""
    options = arguments(__doc__, epochs=14)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    images = _read(options.data)
    (x_train, y_train), (x_test, y_test) = images["train"], images["test"]
    network = Network().to(memory_format=torch.channels_last)
    fit(
        network,
        torch.from_numpy(x_train),
        torch.from_numpy(y_train),
        _augmented,
        epochs=options.epochs,
        rate=0.1,
    )
    chosen = np.sort(rng.permutation(len(x_train))[:1000])
    kept = np.sort(rng.permutation(len(x_test))[:2000])
    nodes, weights = _folded(network)
    result = write(
        "cifar10_cnn",
        nodes,
        weights,
        (3, 32, 32),
        (x_train[chosen], y_train[chosen]),
        (x_test[kept], y_test[kept]),
        f"JPEG copies of CIFAR-10, {options.epochs} epochs, seed {options.seed}",
    )
    predictions = [network(torch.from_numpy(x).float()).argmax(1) for x in np.split(x_test, 20)]
    everything = (torch.cat(predictions).numpy() == y_test).mean()
    print(f"accuracy on {len(kept)} test images: {result:.4f}, on all: {everything:.4f}")


def _folded(network: Network) -> tuple[list[object], dict[str, Array]]:
    """The network as ONNX nodes, batch normalisation folded into the convolutions."""
    weights = {"mean": network.mean.numpy(), "scale": network.scale.numpy()}
    nodes = [
        helper.make_node("Sub", [INPUT, "mean"], ["centred"], name="centre"),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"], name="scale"),
    ]
    value = "scaled"

    def add(
        op: str, name: str, *inputs: str, output: str | None = None, **attributes: object
    ) -> str:
        nodes.append(helper.make_node(op, inputs, [output or name], name=name, **attributes))
        return output or name

    for number, (layer, norm) in enumerate(zip(network.convolutions, network.norms), 1):
        factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
        name = f"conv{number}"
        weights[f"{name}.weight"] = (layer.weight * factor.reshape(-1, 1, 1, 1)).detach().numpy()
        bias = (layer.bias - norm.running_mean) * factor + norm.bias
        weights[f"{name}.bias"] = bias.detach().numpy()
        value = add("Conv", name, value, f"{name}.weight", f"{name}.bias", pads=[1, 1, 1, 1])
        value = add("Relu", f"relu{number}", value)
        if number in POOLED:
            value = add("MaxPool", f"pool{number}", value, kernel_shape=[2, 2], strides=[2, 2])
    value = add("Flatten", "flatten", value)
    for number, layer in enumerate(network.linear, 1):
        name, last = f"fc{number}", number == len(network.linear)
        weights[f"{name}.weight"] = layer.weight.detach().numpy()
        weights[f"{name}.bias"] = layer.bias.detach().numpy()
        output = OUTPUT if last else name
        value = add("Gemm", name, value, f"{name}.weight", f"{name}.bias", output=output, transB=1)
        value = value if last else add("Relu", f"relu_{name}", value)
    return nodes, weights


def _read(path: Path) -> dict[str, tuple[Array, Array]]:
    """(images uint8 [N, 3, 32, 32], labels int64 [N]) of "train" and "test"."""
    found: dict[str, list[tuple[str, Array]]] = {"train": [], "test": []}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith((".jpg", ".png")):
                part, kind, _ = member.name.split("/")[-3:]
                stream = archive.extractfile(member)
                assert stream is not None
                picture = Image.open(io.BytesIO(stream.read())).convert("RGB")
                found[part].append((kind, np.asarray(picture).transpose(2, 0, 1)))
    kinds = sorted({kind for kind, _ in found["train"]})
    return {
        part: (
            np.stack([image for _, image in images]),
            np.array([kinds.index(kind) for kind, _ in images], np.int64),
        )
        for part, images in found.items()
    }


def _augmented(images: torch.Tensor) -> torch.Tensor:
    """Mirror half of the images; shift each by up to four pixels, in four groups."""
    mirrored = torch.rand(len(images), 1, 1, 1) < 0.5
    images = torch.where(mirrored, images.flip(3), images)
    padded = nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
    groups = []
    for group in padded.split(max(1, len(images) // 4)):
        y, x = torch.randint(0, 9, (2,)).tolist()
        groups.append(group[:, :, y : y + 32, x : x + 32])
    return torch.cat(groups)


if __name__ == "__main__":
    main()
