"""Compress to a target: the fewest bytes for a damage, or the least damage for a size."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxrd.allocation.ladder import slope_for_bits, total_distortion
from onnxrd.allocation.search import Trial, search
from onnxrd.allocation.target import Target
from onnxrd.errors import TargetError
from onnxrd.evaluation import count_parameters
from onnxrd.graph.model import atomic_output, load
from onnxrd.importance import Importance
from onnxrd.options import Options
from onnxrd.pipeline.compressor import Compressor, Point, prepared_compressor
from onnxrd.pipeline.job import PathLike, files_of
from onnxrd.report.result import Result

WITHIN = {"size": 0.005, "damage": 0.03}
"""How near below its limit a target is thought to be met."""


def compress(
    model: PathLike,
    output: PathLike,
    *,
    target: Target,
    data: Any,
    importance: PathLike | Importance | None = None,
    options: Options | None = None,
) -> Result:
    """Write the best file that keeps a target.

    A quarter of the samples is held out: all damage is measured on these, and nothing is fitted to
    them.

    Args:
        model: path of the original.
        output: path to write; never the original.
        target: what to keep.
        data: calibration data in any form that `onnxrd.calibration.load` takes.
        importance: measured before; a path or a value.
        options: see there.

    Raises:
        TargetError: the target is out of reach.
        OnnxrdError: see `onnxrd.errors`; nothing has been written then.
    """
    original, path, options = load(model), Path(output), options or Options()
    with atomic_output(path, never=(*original.files, *files_of(data, importance))) as temporary:
        compressor = prepared_compressor(original, data, importance, options)
        return compressor.write(to_target(compressor, target), temporary, path)


def to_target(compressor: Compressor, target: Target) -> Point:
    """The best point that keeps a target.

    Raises:
        TargetError: none does; the message says what can be had.
    """
    if target.is_size:
        return _to_size(compressor, target)
    return _to_damage(compressor, target)


def _to_size(compressor: Compressor, target: Target) -> Point:
    original = compressor.job.model
    limit = target.nbytes(original.nbytes, count_parameters(original))
    size = sum(weight.size for weight in compressor.weights)
    rest = original.nbytes - 4 * size
    bits = min(max(8 * (limit - max(rest, 0)) / size, 0.1), 8.0)

    start = slope_for_bits(list(compressor.ladders.values()), bits)
    method = compressor.method(start)

    def attempt(slope: float) -> tuple[float, Point]:
        point = compressor.point(slope, method=method, measured=False)
        return point.nbytes, point

    trials = search(
        attempt,
        start,
        limit,
        rising=False,
        within=WITHIN["size"],
        bounds=compressor.bounds,
    )
    kept = [t.outcome for t in trials if t.value <= limit]
    if not kept:
        least = min(t.outcome.nbytes for t in trials)
        raise TargetError(
            f"{limit} bytes cannot be reached: the smallest file has {least}. Most of that is "
            "the graph and what is left alone; `onnxrd pack` makes these smaller, too."
        )
    best = max(kept, key=lambda point: point.nbytes)
    return replace(best, damage=compressor.measure(best.quantization))


def _to_damage(compressor: Compressor, target: Target) -> Point:
    def limited(point: Point) -> float:
        assert point.damage is not None
        value = {
            "kl": point.damage.distortion,
            "error": point.damage.relative,
            "drop": point.damage.drop,
        }[target.kind]
        if value is None or value != value:
            raise TargetError(_NOT_MEASURED[target.kind])
        return value

    ladders = list(compressor.ladders.values())
    start = slope_for_bits(ladders, 3.0)
    if target.kind == "kl":
        start *= target.value / max(total_distortion(ladders, start), 1e-300)
    method = compressor.method(start)

    def attempt(slope: float) -> tuple[float, Point]:
        point = compressor.point(slope, method=method)
        return limited(point), point

    trials = search(
        attempt,
        start,
        target.value,
        rising=True,
        within=WITHIN["damage"],
        bounds=compressor.bounds,
    )
    kept: list[Trial[Point]] = [t for t in trials if t.value <= target.value]
    if not kept:
        best = min(trials, key=lambda t: t.value)
        raise TargetError(
            f"a {target.kind} of {target.value:g} cannot be kept on the held-out samples: the "
            f"least that was found is {best.value:.3g}, at {best.outcome.nbytes} bytes."
        )
    return min(kept, key=lambda t: t.outcome.nbytes).outcome


_NOT_MEASURED = {
    "drop": "a drop of accuracy cannot be measured: the data have no labels, or the outputs are no "
    "classes. Give labels, or --max-kl.",
    "error": "a relative error is for outputs that are no classes: give --max-kl.",
    "kl": "the damage is not a number: the outputs are not finite on some held-out sample.",
}
