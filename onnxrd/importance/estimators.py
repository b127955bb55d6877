"""Which cotangents the reverse pass starts from, so that squared gradients estimate importance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxrd.distortion import (
    Head,
    classification_seed,
    positions,
    regression_seed,
    sample_count,
    sampled_class_seed,
)
from onnxrd.errors import ImportanceError, SettingError

Array = NDArray[Any]
Kind = Literal["rademacher", "exact", "sampled"]

MOST_EXACT_PASSES = 4096


@dataclass(frozen=True)
class Estimator:
    """How the expectation over a network's own predictions is taken.

    Attributes:
        kind: "rademacher" (random signs on all classes at once, unbiased, the best per pass),
            "exact" (a pass for each class), or "sampled" (a class drawn from the prediction).
        probes: passes a sample (rademacher and sampled).
        temperature: T of softmax(z / T).
        seed: of all draws; sample n gets the same draws in whatever batch it comes.
    """

    kind: Kind = "rademacher"
    probes: int = 1
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("rademacher", "exact", "sampled"):
            raise SettingError(f"no estimator {self.kind!r}: take rademacher, exact or sampled.")
        if self.probes < 1:
            raise SettingError(f"{self.probes} probes are too few: take 1 or more.")
        if not 0 < self.temperature < np.inf:
            raise SettingError(f"temperature {self.temperature} must be positive and finite.")
        if self.seed < 0:
            raise SettingError(f"seed {self.seed} is negative: take 0 or more.")

    @property
    def scale(self) -> float:
        """What the sum of squared gradients over all passes is multiplied with."""
        return 1.0 if self.kind == "exact" else 1.0 / self.probes

    def seeds(
        self, heads: Sequence[Head], sources: Mapping[str, Array], first: int
    ) -> Iterator[dict[str, Array]]:
        """Cotangents of the heads' sources, one mapping for each reverse pass.

        Args:
            heads: of the network.
            sources: [N, …] at each head's source.
            first: number of the first of these samples, for its draws.

        Raises:
            ImportanceError: a source is NaN or infinite.
        """
        for head in heads:
            if not (sources[head.source] < np.inf).all():  # −∞ is a logit that cannot be
                raise ImportanceError(
                    f"output {head.output!r} is NaN or infinite on a sample. "
                    "Do the data have the scale that the model was trained with?"
                )
        if self.kind == "exact":
            yield from self._exact(heads, sources)
            return
        for probe in range(self.probes):
            total: dict[str, Array] = {}
            for number, head in enumerate(heads):
                values = sources[head.source]
                seed = self._drawn(head, values, [self.seed, probe, number], first)
                total[head.source] = total.get(head.source, 0) + seed
            yield total

    def _drawn(self, head: Head, values: Array, key: list[int], first: int) -> Array:
        shape = positions(head, values.shape)
        samples = range(sample_count(head, values.shape))
        generators = [np.random.default_rng([*key, first + n]) for n in samples]
        if self.kind == "sampled" and head.task == "classification":
            uniform = np.stack([g.random(shape[0]) for g in generators])
            return sampled_class_seed(head, values, uniform, self.temperature)
        signs = np.stack([g.integers(0, 2, shape, np.int8) for g in generators]) * 2.0 - 1.0
        if head.task == "regression":
            return regression_seed(values, signs)
        return classification_seed(head, values, signs, self.temperature)

    def _exact(
        self, heads: Sequence[Head], sources: Mapping[str, Array]
    ) -> Iterator[dict[str, Array]]:
        sizes = [positions(head, sources[head.source].shape) for head in heads]
        passes = sum(p * k for p, k in sizes)
        if passes > MOST_EXACT_PASSES:
            raise SettingError(
                f"the exact sum takes {passes} reverse passes a batch. Take rademacher probes."
            )
        for head, size in zip(heads, sizes):
            values = sources[head.source]
            for which in range(size[0] * size[1]):
                direction = np.zeros((sample_count(head, values.shape), *size))
                direction.reshape(len(direction), -1)[:, which] = 1.0
                if head.task == "regression":
                    seed = regression_seed(values, direction)
                else:
                    seed = classification_seed(head, values, direction, self.temperature)
                zeros = {h.source: np.zeros_like(sources[h.source]) for h in heads}
                yield {**zeros, head.source: seed}
