"""Importance of weights as a value: what was measured, how, and for which model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.errors import ImportanceError
from onnxrd.graph.model import Model, PathLike, atomic_output

Array = NDArray[np.float32]

DAMPING = 1.0
"""Share of a tensor's mean importance that each of its weights gets on top.

A few hundred samples say little about a single weight of a network that is sure of them. On
held-out calibration samples, at 8 to 32 clusters, 0.1 to 1 was best for a ResNet-20, and 1 to 3 for
a ResNet-56, where less than 0.1 was worse than identity.
"""

GROUPS = {"": "", "channel": ", by channel", "tensor": ", as a whole"}
"""Which entries were measured together, in words."""

_WEIGHT = "weight:"
_QUARTIC = "quartic:"
_ABOUT = "about"


@dataclass(frozen=True, eq=False)
class Importance:
    """Diagonal importance h of a model's weights: D ≈ ½ Σ_i h_i (w_i − ŵ_i)².

    Attributes:
        values: weight name → [*weight], every entry ≥ 0; nats per weight² (classification) or
            squared output per weight² (regression). Empty for identity: every h is 1, no unit.
            For the objectives "gradient" and "gradient+hessian" in squared nats per weight².
        model: digest of the model it was measured on (`Model.digest`).
        objective: "fisher", "identity", or with labels "gradient", "hessian", "gradient+hessian".
        task: what the distortion is: "classification", "regression", or both, joined by "+".
        estimator: "rademacher", "exact" or "sampled"; "" for identity.
        probes: reverse passes a sample.
        temperature: of the softmax.
        samples: how many were averaged over.
        seed: of the probes.
        path: "batched", or "one sample at a time" with the reason.
        damping: share of a tensor's mean importance that `damped` adds to each weight's.
        proxies: weights that could not be measured: name → why, with the operator in the way.
            Their importance is the mean importance per weight of all the others.
        method: "autodiff" or "finite-difference"; means nothing for identity.
        fallbacks: weights without a derivative that finite differences measured: name → the
            operator in the way.
        grouped: weights of which only sums over groups were measured, with equal shares for the
            members of a group: name → "channel" or "tensor".
        quartic: for "gradient+hessian" q of D ≈ ½ Σ_i h_i Δ_i² + ¼ q_i Δ_i⁴, of the form of
            `values`; squared nats per weight⁴.
        gauss_newton: weights that outputs are not piecewise linear in, so that the Gauss–Newton
            diagonal stands in for that of the Hessian: name → the operator that is curved.
    """

    values: Mapping[str, Array]
    model: str
    objective: str = "fisher"
    task: str = ""
    estimator: str = ""
    probes: int = 1
    temperature: float = 1.0
    samples: int = 0
    seed: int = 0
    path: str = ""
    damping: float = DAMPING
    proxies: Mapping[str, str] = field(default_factory=dict)
    method: str = "autodiff"
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    grouped: Mapping[str, str] = field(default_factory=dict)
    quartic: Mapping[str, Array] = field(default_factory=dict)
    gauss_newton: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (*self.values.items(), *self.quartic.items()):
            if value.dtype.kind != "f" or not np.isfinite(value).all() or (value < 0).any():
                raise ImportanceError(
                    f"the importance of weight {name!r} is not all finite numbers >= 0. "
                    "Measure it again."
                )

    @property
    def in_nats(self) -> bool:
        """Whether ½ Σ h Δ² predicts the distortion."""
        return self.objective in ("fisher", "hessian")

    def check_model(self, model: Model) -> None:
        """Check that it was measured on this model.

        Raises:
            ImportanceError: it was not.
        """
        if self.model != model.digest:
            raise ImportanceError(
                f"this importance was measured on another model than {model.path}. "
                "Measure again with `onnxrd importance`, or give the model it belongs to."
            )

    def damped(self, name: str, shape: tuple[int, ...]) -> Array:
        """Importance of one weight, ready for a quantizer.

        A weight that no sample depended on has measured importance zero and is not worthless for
        that: every entry gets `damping` times the tensor's mean on top (ones where all are zero).

        Raises:
            ImportanceError: no importance for a weight of this name and shape.
        """
        measured = self.measured(name, shape)
        if self.objective == "identity":
            return measured
        return self._on_top(measured) if measured.any() else np.ones_like(measured)

    def damped_quartic(self, name: str) -> Array:
        """q of one weight, damped like h."""
        return self._on_top(self.quartic[name])

    def _on_top(self, measured: Array) -> Array:
        return measured + np.float32(self.damping * float(measured.mean(dtype=np.float64)))

    def measured(self, name: str, shape: tuple[int, ...]) -> Array:
        """Importance of one weight as it was measured, to predict distortion with.

        Raises:
            ImportanceError: no importance for a weight of this name and shape.
        """
        if self.objective == "identity":
            return np.ones(shape, np.float32)
        if name not in self.values or self.values[name].shape != shape:
            raise ImportanceError(f"no importance for weight {name!r} of shape {list(shape)}.")
        return self.values[name]

    def save(self, path: PathLike, *, never: tuple[Path, ...] = ()) -> None:
        """Write an npz of `arrays`."""
        with atomic_output(Path(path), never=never) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **self.arrays())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """`weight:NAME` and `quartic:NAME`, and `about`, all else as JSON."""
        return {
            _ABOUT: np.array(json.dumps(self.about())),
            **{_WEIGHT + name: value for name, value in self.values.items()},
            **{_QUARTIC + name: value for name, value in self.quartic.items()},
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Importance":
        """The inverse of `arrays`."""
        values, quartic = (
            {k.removeprefix(kind): arrays[k] for k in arrays if k.startswith(kind)}
            for kind in (_WEIGHT, _QUARTIC)
        )
        return cls(values, quartic=quartic, **json.loads(str(arrays[_ABOUT])))

    def about(self) -> dict[str, Any]:
        """All attributes but the arrays, as plain data."""
        arrays = ("values", "quartic")
        shallow = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in arrays}
        return {k: dict(v) if isinstance(v, Mapping) else v for k, v in shallow.items()}

    def how(self, name: str) -> str:
        """In words, how the importance of a weight was found."""
        if name in self.proxies:
            return f"the mean of the others: {self.proxies[name]}"
        group = GROUPS[self.grouped.get(name, "")]
        if name in self.fallbacks:
            return f"finite differences{group}: {self.fallbacks[name]}"
        if name in self.gauss_newton:
            return f"Gauss–Newton for the Hessian: {self.gauss_newton[name]} is curved"
        return self.method.replace("-", " ") + group


def load_importance(path: PathLike, model: Model) -> Importance:
    """Read importance that `Importance.save` wrote, for the model that it was measured on.

    Raises:
        ImportanceError: not such a file, or it belongs to another model.
    """
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            importance = Importance.of_arrays(archive)
    except FileNotFoundError as error:
        raise ImportanceError(f"{path}: no such file.") from error
    except ImportanceError as error:
        raise ImportanceError(f"{path}: {error}") from error
    except Exception as error:  # zipfile, numpy, json and struct each have exceptions of their own
        raise ImportanceError(
            f"{path} is not a file of importance. Make one with `onnxrd importance`."
        ) from error
    importance.check_model(model)
    return importance


def identity(model: Model) -> Importance:
    """The paper's baseline: an error costs the same in every weight."""
    return Importance({}, model.digest, objective="identity")
