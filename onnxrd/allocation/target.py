"""What a compressed network shall be: so small, or so little damaged."""

import re
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

from onnxrd.errors import SettingError

Kind = Literal["size", "ratio", "bits", "kl", "error", "drop"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SIZE = re.compile(r"([0-9]*\.?[0-9]+)\s*([kmg]i?)?b?", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A promise about the output, exactly one.

    Attributes:
        kind: "size" (bytes of the file, at most), "ratio" (times smaller than the original, at
            least), "bits" (of the file, for each floating-point constant of the original, at most),
            "kl" (distortion: nats, or squared error for outputs that are no classes), "error"
            (squared error over the mean squared norm of the outputs), or "drop" (of accuracy, as a
            share of the samples); the last three on samples held out from the calibration data.
        value: the number.

    Raises:
        SettingError: it makes no sense.
    """

    kind: Kind
    value: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            kinds = ", ".join(get_args(Kind))
            raise SettingError(f"there is no target {self.kind!r}: choose one of {kinds}.")
        if not isinstance(self.value, Real):
            raise SettingError(
                f'{self.value!r} is no number: give one, as in Target("size", 40_000).'
            )
        if not 0 <= self.value < float("inf") or (self.value == 0 and self.kind != "drop"):
            raise SettingError(f"a target of {self.value} makes no sense: give more than 0.")
        if self.kind == "ratio" and self.value <= 1:
            raise SettingError(f"a ratio of {self.value} is no compression: give more than 1.")
        if self.kind == "drop" and self.value >= 1:
            raise SettingError(f"a drop of {self.value:.0%} leaves nothing: give a share below 1.")

    @property
    def is_size(self) -> bool:
        """Whether it limits the bytes (else the damage)."""
        return self.kind in ("size", "ratio", "bits")

    def nbytes(self, original: int, parameters: int) -> int:
        """The most bytes that the output may have.

        Args:
            original: bytes of the original.
            parameters: floating-point constants of the original.
        """
        sizes = {"ratio": original / self.value, "bits": self.value * parameters / 8}
        return int(sizes.get(self.kind, self.value))


def parse_size(text: str) -> float:
    """Bytes of a size such as 4MB, 4MiB, 800k or 123456.

    Raises:
        SettingError: it is none.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise SettingError(f"{text!r} is no size: write 800k, 4MB, 4MiB or a number of bytes.")
    return float(found[1]) * _UNITS[(found[2] or "").lower()]


def parse_share(text: str) -> float:
    """A share such as 0.5% or 0.005.

    Raises:
        SettingError: it is none.
    """
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError as error:
        raise SettingError(f"{text!r} is no share: write 0.5% or 0.005.") from error
