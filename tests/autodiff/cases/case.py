"""What a case is, and where its numbers come from."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One operator with inputs.

    Attributes:
        op: operator.
        inputs: arrays, or None for an absent one. Floating-point ones are differentiated.
        attributes: of the node.
        opset: of the model.
        slots: inputs to differentiate; by default all floating-point ones.
        outputs: how many the node has.
        differentiated: which of the outputs are, by default the first.
        absent: which of the outputs are not asked for.
        weights: slots that a batched rule is to be tested for.
        samples_in: the slot of the samples, three of them on axis 0.
        domain: of the operator.
        single: onnxruntime computes in single precision even where it takes doubles.
        fixed: it does not accept inputs with a first axis of unknown length.
    """

    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    slots: tuple[int, ...] | None = None
    outputs: int = 1
    differentiated: tuple[int, ...] = (0,)
    weights: tuple[int, ...] = ()
    samples_in: int = 0
    domain: str = ""
    single: bool = False
    fixed: bool = False
    absent: tuple[int, ...] = ()

    def __str__(self):
        shapes = "x".join("-" if i is None else str(list(i.shape)) for i in self.inputs)
        return f"{self.op}-{self.opset}-{shapes}-{self.attributes}".replace(" ", "")

    @property
    def differentiable(self):
        """The slots to differentiate."""
        floats = (k for k, v in enumerate(self.inputs) if v is not None and v.dtype.kind == "f")
        return tuple(floats) if self.slots is None else self.slots


def spaced(*shape, low=-2.0, high=2.0, seed=0):
    """Distinct values at equal distances, shuffled, none of them at a kink (zero, ±1, ±3)."""
    n = int(np.prod(shape))
    values = np.linspace(low, high, n + 2)[1:-1] + 0.0137
    return np.random.default_rng(seed).permutation(values).reshape(shape).astype(np.float32)


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*numbers):
    return np.array(numbers, np.int64)


def floats(*numbers):
    return np.array(numbers, np.float32)


def scalar(number):
    return np.array(number, np.float32)


X = spaced(3, 4, 5)
