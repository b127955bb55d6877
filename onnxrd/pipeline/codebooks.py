"""The paper's two compressors: codebooks of a few levels, and pruning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from onnxrd import quantizers
from onnxrd.errors import SettingError
from onnxrd.graph.model import PathLike, atomic_output, load, scratch
from onnxrd.graph.weights import Weight, find_weights
from onnxrd.importance import Importance
from onnxrd.measurement import Codebooks, Quantizer
from onnxrd.options import Options
from onnxrd.pipeline.grids import Grids
from onnxrd.pipeline.job import choose, files_of, prepare
from onnxrd.pipeline.output import finish
from onnxrd.pipeline.vectors import Vectors, shorter
from onnxrd.quantizers import Quantized
from onnxrd.quantizers.kmeans import check_clusters
from onnxrd.report.result import Result

Scope = Literal["layer", "global"]

CLUSTERS = 16
"""Levels of a codebook where nothing else is said."""


def quantize(
    model: PathLike,
    output: PathLike,
    *,
    clusters: int | None = None,
    keep: float = 1.0,
    bits: float | None = None,
    trellis: bool = False,
    vector: int | None = None,
    data: Any = None,
    importance: PathLike | Importance | None = None,
    options: Options | None = None,
) -> Result:
    """Replace every weight's values by a few levels, found by importance-weighted k-means.

    Or by levels of a uniform grid, with entropy-coded codes of so many bits.

    Args:
        model: path of the original.
        output: path to write; never the original.
        clusters: levels of each weight's codebook; None for 16.
        keep: share of each weight's entries that may be other than zero; below 1 the rest is
            pruned and one level is zero.
        bits: take grids instead of clusters, of at most so many bits a weight on average.
        trellis: two such grids with a trellis of 32 states: a tenth of a bit fewer for the same
            distortion, half a bit if importance varies a lot, but twice the time to load.
        vector: so many weights in a row, 2 to 8, share a code, and each of the clusters is a vector
            of so many; fewer where a weight is too small for such a table. At two bits that
            spares a million Gaussian weights .07 bit, .3 where importance varies a lot; but weights
            that crowd about zero are better off with more levels, of entropy-coded codes.
        data: calibration data in any form that `onnxrd.calibration.load` takes.
        importance: measured before, instead of by way of the data; a path or a value.
        options: see there.

    Raises:
        OnnxrdError: see `onnxrd.errors`; nothing has been written then.
    """
    options = options or Options()
    if bits is not None and (clusters is not None or keep != 1):
        raise SettingError("bits are of grids: no clusters, and nothing pruned.")
    clusters = CLUSTERS if clusters is None else clusters
    if vector is not None:
        if bits is not None or trellis or keep != 1:
            raise SettingError("vectors are clusters: no bits, no trellis, and nothing pruned.")
        quantizer = Vectors(clusters, vector, options.seed)
        return _compress(model, output, quantizer, data, importance, options)
    if bits is not None:
        return _compress(model, output, Grids(bits, trellis), data, importance, options)
    if trellis:
        raise SettingError("a trellis is for grids: say of how many bits.")
    check_clusters(clusters)
    _check_share(keep)
    return _compress(model, output, Codebooks(clusters, keep), data, importance, options)


def prune(
    model: PathLike,
    output: PathLike,
    *,
    keep: float,
    scope: Scope = "layer",
    data: Any = None,
    importance: PathLike | Importance | None = None,
    options: Options | None = None,
) -> Result:
    """Set the weights that matter least, by h·w², to zero and keep the others as they are.

    Args:
        model: path of the original.
        output: path to write; never the original.
        keep: share of the weights to keep.
        scope: the same share in every layer (as in the paper), or one threshold for all.
        data: as for `quantize`.
        importance: as for `quantize`.
        options: see there.

    Raises:
        OnnxrdError: see `onnxrd.errors`; nothing has been written then.
    """
    _check_share(keep)
    return _compress(model, output, _Pruning(keep, scope), data, importance, options or Options())


@dataclass(frozen=True)
class _Pruning:
    """The quantizer of `prune`."""

    keep: float
    scope: Scope

    def __call__(self, weights: Sequence[Weight], h: Importance) -> Iterator[Quantized]:
        arrays = {w.name: w.array() for w in weights}
        costs = {w.name: h.damped(w.name, w.shape) for w in weights}
        quartic = {name: h.damped_quartic(name) for name in h.quartic} or None
        pruned = quantizers.prune(arrays, costs, self.keep, scope=self.scope, quartic=quartic)
        yield from (pruned[w.name] for w in weights)


def _compress(
    model: PathLike,
    output: PathLike,
    quantizer: Quantizer,
    data: Any,
    importance: PathLike | Importance | None,
    options: Options,
) -> Result:
    """Quantize every weight, write, verify, measure; only then the output appears."""
    original, path = load(model), Path(output)
    weights, skipped = choose(original, find_weights(original), options.exclude)
    with atomic_output(path, never=(*original.files, *files_of(data, importance))) as temporary:
        job = prepare(original, data, importance, options, quantizer)
        pairs = zip(weights, quantizer(weights, job.importance))
        tracked = options.track(pairs, "quantizing", len(weights))
        shelf = quantizers.Shelf(scratch(temporary))
        done = {weight: shelf.put(quantized) for weight, quantized in tracked}
        if isinstance(quantizer, Vectors):
            methods = {weight.name: quantizer.method(book) for weight, book in done.items()}
            said = shorter(quantizer, list(done.values()))
            job = replace(job, warnings=(*job.warnings, *said))
        else:
            methods = {weight.name: _METHODS.get(type(quantizer), "") for weight in weights}
        return finish(job, done, skipped, temporary, path, methods=methods)


_METHODS = {Codebooks: "k-means", Grids: "entropy-coded grid", _Pruning: "pruning"}


def _check_share(keep: float) -> None:
    if not 0 < keep <= 1:
        raise SettingError(f"cannot keep a share of {keep}: take one above 0 and up to 1.")
