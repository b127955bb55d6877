"""The rate–distortion bound of a network under its importance, and how near files come to it.

Weights are draws, each tensor's of one density, independent of each other and of their importance.
Three bounds, from what a practical compressor knows to what none does:

- by tensor: Gaussian weights, every one of a tensor as important as their mean;
- Gaussian: each weight has its own importance, and the decoder knows it for nothing (theorem 2);
- empirical: the same, with the density that the tensor's weights are seen to have.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxrd.errors import ImportanceError, ModelError, SettingError
from onnxrd.graph.model import Model
from onnxrd.graph.stored import Stored, stored_weights
from onnxrd.graph.weights import Weight, find_weights
from onnxrd.importance import Importance
from onnxrd.progress import Track, silent
from onnxrd.rate_distortion import (
    BITS,
    Bound,
    Histogram,
    Source,
    bound_at,
    empirical_curve,
    gaussian_curve,
    histogram,
)
from onnxrd.rate_distortion import bound as least_rate
from onnxrd.rate_distortion.histogram import Floats, centred

KINDS = ("by tensor", "gaussian", "empirical")

NATS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Distortions to report where they are KL divergences."""

SHARES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
"""Distortions to report elsewhere, as shares of that at zero rate."""

FINEST_BITS = 8
"""Bits per weight up to which the curve is drawn."""


@dataclass(frozen=True, eq=False)
class BoundPoint:
    """The bounds at one distortion.

    Attributes:
        distortion: D = ½ Σ h (w − ŵ)².
        bounds: for each of `KINDS`.
    """

    distortion: float
    bounds: tuple[Bound, ...]

    @property
    def bits(self) -> dict[str, float]:
        """Bits per weight of the network, by kind of bound."""
        return {kind: each.bits_per_weight for kind, each in zip(KINDS, self.bounds)}


@dataclass(frozen=True, eq=False)
class FileRate:
    """A compressed file beside the bounds for its distortion.

    Attributes:
        name: of the file.
        point: the bounds at its predicted distortion.
        bits: per weight, of all that the weights are decoded from.
        file_bits: per weight, of the whole file.
        layer_bits: [S], per weight of each tensor; what several share is divided among them.
        layer_distortion: [S], ½ Σ h (w − ŵ)² of each tensor.
    """

    name: str
    point: BoundPoint
    bits: float
    file_bits: float
    layer_bits: tuple[float, ...]
    layer_distortion: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class NetworkBound:
    """R(D) of a network.

    Attributes:
        weights: [S], the tensors.
        importance: [S], mean of each tensor.
        deviations: [S], standard deviation of each tensor's weights.
        zero_rate: the distortion if nothing is sent.
        points: at the distortions asked for.
        files: those it was asked about.
        curves: [KINDS, 2, T], distortion and bits per weight, to be drawn.
        in_nats: whether distortion is a KL divergence.
    """

    weights: tuple[Weight, ...]
    importance: tuple[float, ...]
    deviations: tuple[float, ...]
    zero_rate: float
    points: tuple[BoundPoint, ...]
    files: tuple[FileRate, ...]
    curves: Floats
    in_nats: bool

    @property
    def entries(self) -> int:
        """Number of weights."""
        return sum(weight.size for weight in self.weights)


def bound(
    model: Model,
    importance: Importance,
    *,
    distortions: Sequence[float] | None = None,
    against: Sequence[Model] = (),
    weights: Sequence[Weight] | None = None,
    track: Track = silent,
) -> NetworkBound:
    """The least rate of a network's weights for a distortion, whatever the compressor.

    Args:
        model: the network; its biases and normalisation parameters do not count.
        importance: of its weights, as it was measured (without damping).
        distortions: at which to report; None for a list that makes sense.
        against: compressed versions, by whatever tool, to compare.
        weights: those that count; None for all that can be compressed.
        track: shows progress.

    Raises:
        ImportanceError: the importance is of another model, or nothing depends on a weight.
        SettingError: a distortion is not positive.
        ModelError: a weight of a compressed version is missing, or cannot be computed.
    """
    importance.check_model(model)
    weights = tuple(weights or (w for w in find_weights(model) if not w.skip))
    sources = list(track(_sources(weights, importance), "densities", len(weights)))
    kinds = list(zip(*sources))
    alone = [s.curve.distortion[0] * s.importance.mean / 2 for s, *_ in sources]
    zero_rate = float(sum(share * w.size for share, w in zip(alone, weights)))
    if not zero_rate > 0:
        raise ImportanceError("no weight has importance: there is nothing to bound.")
    in_nats = importance.in_nats and importance.task == "classification"
    if distortions is None:
        distortions = NATS if in_nats else [share * zero_rate for share in SHARES]
    if not all(0 < d < np.inf for d in distortions):
        raise SettingError("a distortion must be positive and finite.")

    def point(distortion: float) -> BoundPoint:
        return BoundPoint(distortion, tuple(least_rate(s, distortion=distortion) for s in kinds))

    return NetworkBound(
        weights,
        tuple(source.importance.mean for source, *_ in sources),
        tuple(float(np.sqrt(source.curve.distortion[0])) for source, *_ in sources),
        zero_rate,
        tuple(map(point, distortions)),
        tuple(_file(version, weights, importance, point, track) for version in against),
        np.stack([_curve(s, zero_rate) for s in kinds]),
        in_nats,
    )


def _sources(weights: Sequence[Weight], importance: Importance) -> Iterator[tuple[Source, ...]]:
    """Each tensor in the ways of `KINDS`."""
    for weight in weights:
        array = np.asarray(weight.array())
        array = array if array.dtype.kind == "f" else array.astype(np.float32)
        own = histogram(importance.measured(weight.name, weight.shape))
        mean = Histogram(np.array([own.mean]), np.array([float(weight.size)]))
        normal = gaussian_curve(centred(array).variance)
        yield Source(normal, mean), Source(normal, own), Source(empirical_curve(array), own)


def _file(
    version: Model,
    weights: Sequence[Weight],
    importance: Importance,
    point: Callable[[float], BoundPoint],
    track: Track,
) -> FileRate:
    spent, parts = [], []
    for stored in track(stored_weights(version, weights), version.path.name, len(weights)):
        spent.append(_distortion(stored, importance, version))
        parts.append(stored.constants)
    if not sum(spent) > 0:
        raise SettingError(f"{version.path} holds the weights of the original: nothing to compare.")
    sizes = [weight.size for weight in weights]
    nbytes = _divided(parts, sizes)
    return FileRate(
        str(version.path),
        point(sum(spent)),
        8 * sum(nbytes) / sum(sizes),
        8 * version.nbytes / sum(sizes),
        tuple(8 * count / size for count, size in zip(nbytes, sizes)),
        tuple(spent),
    )


def _divided(parts: Sequence[Mapping[str, int]], sizes: Sequence[int]) -> list[float]:
    """Bytes of each weight; what several come from is divided among them by their entries."""
    users: Counter[str] = Counter()
    for constants, size in zip(parts, sizes):
        users.update(dict.fromkeys(constants, size))
    return [
        sum(nbytes * size / users[name] for name, nbytes in constants.items())
        for constants, size in zip(parts, sizes)
    ]


def _distortion(stored: Stored, importance: Importance, version: Model) -> float:
    weight = stored.weight
    if stored.array is None:
        raise ModelError(
            f"{version.path} holds no weight {weight.name!r} in any form that could be read. "
            "Is it the same network?"
        )
    error = weight.array().astype(np.float64) - stored.array
    return float((importance.measured(weight.name, weight.shape) * error**2).sum()) / 2


def _curve(sources: Sequence[Source], zero_rate: float) -> Floats:
    """[2, T], distortion and bits per weight from zero rate to `FINEST_BITS`."""
    size = sum(source.importance.counts.sum() for source in sources)
    finest = least_rate(sources, rate=FINEST_BITS * size / BITS).multiplier
    coarsest = least_rate(sources, distortion=zero_rate).multiplier
    points = [bound_at(sources, float(mu)) for mu in np.geomspace(finest, coarsest, 60)]
    return np.array([[p.distortion.sum() for p in points], [p.bits_per_weight for p in points]])
