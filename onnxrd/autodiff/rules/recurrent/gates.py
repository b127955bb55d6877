"""The functions at the gates of recurrent operators."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxrd.autodiff.attributes import get_float
from onnxrd.autodiff.registry import NoRuleError
from onnxrd.autodiff.rules.activations import DERIVATIVES, At
from onnxrd.autodiff.tape import Tape
from onnxrd.autodiff.terms import Term

_DEFAULTS: dict[str, dict[str, float | None]] = {
    "Affine": {"alpha": None, "beta": None},  # the standard has 1 and 0, onnxruntime 0 and 0
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "LeakyRelu": {"alpha": 0.01},
    "Relu": {},
    "ScaledTanh": {"alpha": None, "beta": None},
    "Sigmoid": {},
    "Softplus": {},
    "Softsign": {},
    "Tanh": {},
    "ThresholdedRelu": {"alpha": 1.0},
}
_NAMES = {name.lower(): name for name in _DEFAULTS}


@dataclass(frozen=True)
class _Point(At):
    """Where the function of a gate is differentiated."""

    at: Term
    value: Term
    settings: Mapping[str, float]

    @property
    def x(self) -> Term:
        return self.at

    @property
    def y(self) -> Term:
        return self.value

    def get(self, name: str, default: float) -> float:
        return self.settings.get(name, default)


@dataclass(frozen=True)
class Gate:
    """y = f(clip(x)).

    Attributes:
        tape: to append operators to.
        node: the recurrent operator.
        name: of f.
        settings: its α and β, where it has any.
        clip: x is kept within ± this; 0 for no limit.
    """

    tape: Tape
    node: ir.Node
    name: str
    settings: Mapping[str, float]
    clip: float = 0.0

    def __call__(self, x: Term) -> Term:
        """Y of an input."""
        x = x.op("Clip", -self.clip, self.clip) if self.clip else x
        if self.name == "Affine":
            return x * self.settings["alpha"] + self.settings["beta"]
        if self.name == "ScaledTanh":
            return (x * self.settings["beta"]).op("Tanh") * self.settings["alpha"]
        return x.op(self.name, **self.settings)

    def derivative(self, x: Term, y: Term) -> Term:
        """dy/dx, 0 where x is clipped."""
        found = self._derivative(x, y)
        return found * (x.op("Abs") < self.clip) if self.clip else found

    def _derivative(self, x: Term, y: Term) -> Term:
        if self.name == "Affine":
            return y * 0.0 + self.settings["alpha"]
        if self.name == "ScaledTanh":
            alpha, beta = self.settings["alpha"], self.settings["beta"]
            return y * y * (-beta / alpha) + alpha * beta
        return DERIVATIVES[self.name](_Point(self.tape, self.node, x, y, self.settings))


def gates_of(t: Tape, node: ir.Node, default: Sequence[str], directions: int) -> list[list[Gate]]:
    """The functions of each direction, in the order of the attribute `activations`.

    α and β come from two lists, each function taking the next of them if it has such a parameter.

    Raises:
        NoRuleError: an unknown function, or one that is not told its parameters.
    """
    attribute = node.attributes.get("activations")
    names = list(attribute.as_strings()) if attribute else list(default) * directions
    clip = get_float(node, "clip", 0.0)
    lists = {key: _numbers(node, f"activation_{key}") for key in ("alpha", "beta")}
    gates = []
    for given in names:
        name = _NAMES.get(given.lower())
        if name is None:
            raise NoRuleError(f"activation {given!r}")
        gates.append(Gate(t, node, name, _settings(name, lists), clip))
    count = len(default)
    return [gates[k : k + count] for k in range(0, len(gates), count)]


def _settings(name: str, lists: Mapping[str, Iterator[float]]) -> dict[str, float]:
    settings = {}
    for key, default in _DEFAULTS[name].items():
        value = next(lists[key], default)
        if value is None:
            raise NoRuleError(f"activation {name} without activation_{key}")
        settings[key] = value
    return settings


def _numbers(node: ir.Node, name: str) -> Iterator[float]:
    attribute = node.attributes.get(name)
    return iter(attribute.as_floats() if attribute else ())
