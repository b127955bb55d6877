"""What came of a compression, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxrd.evaluation import Evaluation


@dataclass(frozen=True)
class Layer:
    """What was done to one weight.

    Attributes:
        name: of the weight.
        role: convolution, linear, embedding or recurrent.
        shape: of the weight.
        levels: distinct values it may take, or vectors; None if kept entries are as they were.
        kept: share of its entries that are not zero.
        encoding: how it is stored.
        nbytes: of all that is stored for it alone.
        bits: the same, for each of its entries.
        distortion: ½ Σ h Δ²; nats (or squared output) unless importance is identity.
        proxy: the operator that kept its importance from being measured, if any.
        method: how its levels and codes were found, in words.
        together: how many of its entries share a code; above 1 its levels are vectors of so many.
        step: between neighbouring levels, where all of them are multiples of it.
        rivals: name of another encoding that it could have had → bytes it would take there.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    levels: int | None
    kept: float
    encoding: str
    nbytes: int
    bits: float
    distortion: float
    proxy: str = ""
    method: str = ""
    step: float | None = None
    together: int = 1
    rivals: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A compressed model and how it came out.

    Attributes:
        path: of the output.
        layers: every weight that was compressed.
        skipped: every other floating-point constant: name → reason.
        nbytes: (before, after), bytes on disk.
        parameters: floating-point constants of the original.
        importance: how importance was measured (`Importance.about`).
        predicted: distortion predicted by importance; None if importance is identity.
        evaluation: measured on the calibration samples; None without data.
        warnings: what the user should know.
    """

    path: Path
    layers: tuple[Layer, ...]
    skipped: Mapping[str, str]
    nbytes: tuple[int, int]
    parameters: int
    importance: Mapping[str, Any]
    predicted: float | None
    evaluation: Evaluation | None
    warnings: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """How many times smaller the output is."""
        return self.nbytes[0] / self.nbytes[1]

    @property
    def bits_per_weight(self) -> float:
        """Bits of the whole output for each floating-point constant of the original."""
        return 8 * self.nbytes[1] / max(self.parameters, 1)
