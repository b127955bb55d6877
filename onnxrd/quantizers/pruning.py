"""Pruning: the weights that matter least become zero, and the others may be quantized as well."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxrd.errors import ImportanceError, SettingError
from onnxrd.quantizers.kmeans import check_clusters, code_dtype, fitted_codebook
from onnxrd.quantizers.measures import checked_importance
from onnxrd.quantizers.quantized import Array, Codebook, Sparse
from onnxrd.quantizers.quartic import fitted_quartic


def prune(
    weights: Mapping[str, Array],
    importance: Mapping[str, Array] | None,
    keep: float,
    *,
    scope: Literal["layer", "global"],
    quartic: Mapping[str, Array] | None = None,
) -> dict[str, Sparse]:
    """Keep the share of the weights whose loss would cost most, and set the others to zero.

    A weight's score is h_i w_i² (Gao et al. 2019, section 5), twice the distortion of losing it;
    without importance the order is that of magnitude, and with quartic importance the score is
    h_i w_i² + ¼ q_i w_i⁴. Among equals the first are kept. Golden rule 1 holds exactly, every term
    being zero.

    Args:
        weights:    name → [*weight].
        importance: name → [*weight], nats per weight²; None stands for one everywhere.
        keep:       the share to keep, in (0, 1].
        scope:      "layer" keeps round(keep · n) of every weight tensor, "global" of all together.
        quartic:    name → [*weight], q >= 0.

    Returns: name → the pruned weight, in the order given.

    Raises:
        SettingError: keep or scope makes no sense.
        ModelError: a weight has another dtype than float16, float32 or float64, or is not finite.
        ImportanceError: an importance is missing, has another shape, or is negative or not finite.
    """
    _check_keep(keep)
    if scope not in ("layer", "global"):
        raise SettingError(f"pruning scope {scope!r}: choose 'layer' or 'global'")
    missing = [] if importance is None else [name for name in weights if name not in importance]
    if missing:
        raise ImportanceError(
            f"no importance for {', '.join(missing)}: compute the importance again, from this model"
        )
    scores = {}
    for name, weight in weights.items():
        h = None if importance is None else importance[name]
        q = None if quartic is None else checked_importance(weight, quartic[name], name)
        scores[name] = _scores(weight, checked_importance(weight, h, name), q)
    if scope == "layer":
        kept = {name: _largest(score, keep) for name, score in scores.items()}
    else:
        ends = np.cumsum([score.size for score in scores.values()])
        together = _largest(np.concatenate([np.empty(0), *scores.values()]), keep)
        kept = dict(zip(scores, np.split(together, ends[:-1])))
    return {
        name: Sparse(np.where(kept[name].reshape(weight.shape), weight, weight.dtype.type(0)))
        for name, weight in weights.items()
    }


def prune_and_quantize(
    weight: Array,
    importance: Array | None,
    keep: float,
    clusters: int,
    quartic: Array | None = None,
) -> Codebook:
    """Prune one weight, and quantize what is kept by weighted k-means.

    The pruned weights get the level 0 and the others clusters - 1 levels of their own. (To let
    k-means itself choose how many become zero: ``weighted_kmeans(..., pinned_zero=True)``.)

    Args:
        weight:     [*weight], float16, float32 or float64.
        importance: [*weight], nats per weight², >= 0; None stands for one everywhere.
        keep:       the share to keep, in (0, 1]; 1 leaves all the levels to k-means.
        clusters:   number of levels, zero included, 2 … 65536.
        quartic:    [*weight], q >= 0: then both steps heed it too, see `quartic_kmeans`.

    Returns: codes [*weight] and levels [L], L <= clusters.

    Raises:
        SettingError: keep or clusters is out of range.
        ModelError: the weight has another dtype than float16, float32 or float64, or is not finite.
        ImportanceError: the importance has another shape, or is negative or not finite.
    """
    _check_keep(keep)
    check_clusters(clusters)
    importance = checked_importance(weight, importance)
    q = None if quartic is None else checked_importance(weight, quartic)
    kept = _largest(_scores(weight, importance, q), keep).reshape(weight.shape)
    if kept.all():
        return _codebook(weight, importance, q, clusters)
    book = _codebook(weight[kept], importance[kept], None if q is None else q[kept], clusters - 1)
    levels = np.union1d(book.levels, np.zeros(1, weight.dtype))
    codes = np.full(weight.shape, np.searchsorted(levels, 0), code_dtype(levels))
    codes[kept] = np.searchsorted(levels, book.levels)[book.codes]
    return Codebook(codes, levels)


def _check_keep(keep: float) -> None:
    if not 0 < keep <= 1:
        raise SettingError(f"keep {keep}: choose a share above 0 and up to 1, such as 0.3 for 30 %")


def _codebook(weight: Array, importance: Array, quartic: Array | None, clusters: int) -> Codebook:
    if quartic is None:
        return fitted_codebook(weight, importance, clusters)
    return fitted_quartic(weight, importance, quartic, clusters)


def _scores(weight: Array, importance: Array, quartic: Array | None) -> NDArray[np.float64]:
    """The scores h w² + ¼ q w⁴, [n]; in float64, where a float32 product could vanish."""
    square = weight.astype(np.float64).ravel()
    square *= square
    cost = importance.ravel()
    return square * (cost if quartic is None else cost + 0.25 * quartic.ravel() * square)


def _largest(scores: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """[n], true for exactly round(share · n) of the largest scores, the first among equals."""
    pruned = len(scores) - round(share * len(scores))
    if pruned == 0:
        return np.ones(len(scores), dtype=bool)
    threshold = np.partition(scores, pruned - 1)[pruned - 1]  # the largest score that is pruned
    kept: NDArray[np.bool_] = scores > threshold
    ties = np.flatnonzero(scores == threshold)
    kept[ties[: len(scores) - pruned - np.count_nonzero(kept)]] = True
    return kept
