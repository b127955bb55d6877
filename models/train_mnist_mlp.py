"""Train mnist_mlp.onnx, the fully connected 784-256-256-10 network of Gao et al. 2019.

--data is an npz with x_train, x_test (uint8 [N, 28, 28]) and y_train, y_test (integers [N]).
"""

import itertools

import numpy as np
import torch
from common import INPUT, OUTPUT, arguments, fit, write
from onnx import helper

SIZES = (784, 256, 256, 10)


def main() -> None:
    """Train, write, and print the accuracy on all test digits."""
    options = arguments(__doc__, epochs=30)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    data = np.load(options.data)
    x_train, x_test = (data[k].reshape(-1, 784) for k in ("x_train", "x_test"))
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(SIZES)]
    network = torch.nn.Sequential(
        Scale(), layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2]
    )
    labels = torch.from_numpy(data["y_train"].astype(np.int64))
    fit(network, torch.from_numpy(x_train), labels, _shifted, epochs=options.epochs, rate=0.1)

    nodes = [helper.make_node("Mul", [INPUT, "scale"], ["scaled"], name="scale")]
    weights = {"scale": np.array(1 / 255, np.float32)}
    value = "scaled"
    for number, layer in enumerate(layers, 1):
        w, b = f"fc{number}.weight", f"fc{number}.bias"
        weights |= {w: layer.weight.detach().numpy(), b: layer.bias.detach().numpy()}
        out = OUTPUT if number == len(layers) else f"fc{number}"
        nodes.append(helper.make_node("Gemm", [value, w, b], [out], name=f"fc{number}", transB=1))
        value = out
        if number < len(layers):
            value = f"relu{number}"
            nodes.append(helper.make_node("Relu", [out], [value], name=value))
    chosen = np.sort(rng.permutation(len(x_train))[:1000])
    result = write(
        "mnist_mlp",
        nodes,
        weights,
        (784,),
        (x_train[chosen], data["y_train"][chosen]),
        (x_test, data["y_test"]),
        f"MNIST, {options.epochs} epochs, seed {options.seed}",
    )
    print(f"accuracy on the {len(x_test)} test digits: {result:.4f}")


class Scale(torch.nn.Module):
    """Grey values 0..255 → 0..1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 784] → [N, 784]."""
        return x / 255


def _shifted(images: torch.Tensor) -> torch.Tensor:
    """Move a batch of digits by up to two pixels (all by the same)."""
    moves = torch.randint(-2, 3, (2,)).tolist()
    return images.reshape(-1, 28, 28).roll(moves, dims=(1, 2)).reshape(-1, 784)


if __name__ == "__main__":
    main()
