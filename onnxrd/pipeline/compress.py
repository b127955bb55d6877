"""Compress to a target: the fewest bytes for a damage, or the least damage for a size."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxrd.allocation.ladder import slope_for_bits
from onnxrd.allocation.search import Trial, search
from onnxrd.allocation.target import Target
from onnxrd.compression.held_out import RUIN, Floats, best_of
from onnxrd.compression.quantization import Method
from onnxrd.errors import CalibrationError, SettingError, TargetError
from onnxrd.evaluation import count_parameters
from onnxrd.graph.model import PathLike, atomic_output, load
from onnxrd.importance import Importance
from onnxrd.options import Options
from onnxrd.pipeline.compressor import Compressor, Point, prepared_compressor
from onnxrd.pipeline.job import files_of
from onnxrd.report.result import Result

WITHIN = {"size": 0.005, "damage": 0.03}
"""How near below its limit a target is thought to be met."""

NEAR = 0.02
"""Share of a size that a file may leave unused, unless it is clearly better for that."""

NARROW = 0.04
"""Log slopes nearer than that differ by less than a hundredth of the bytes, and in damage by
chance: it jumps from one rounding of a network to the next."""


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
        CalibrationError: the damage cannot be measured on such data.
        OnnxrdError: see `onnxrd.errors`; nothing has been written then.
    """
    if not isinstance(target, Target):
        raise SettingError(f'{target!r} is no target: give onnxrd.Target("kl", 0.01), say.')
    original, path, options = load(model), Path(output), options or Options()
    with atomic_output(path, never=(*original.files, *files_of(data, importance))) as temporary:
        compressor = prepared_compressor(original, data, importance, options)
        result = compressor.write(to_target(compressor, target), temporary, path)
        return replace(result, warnings=(*result.warnings, *_doubts(target, compressor)))


def _doubts(target: Target, compressor: Compressor) -> Iterator[str]:
    """What the user may not have meant by a target."""
    heads = compressor.network.heads
    numbers = ", ".join(head.output for head in heads if head.task == "regression")
    if target.kind != "kl" or not numbers:
        return
    if all(head.task == "regression" for head in heads):
        yield (
            f"--max-kl limits the squared error here, since {numbers} are no classes. --max-error "
            "limits it as a share of the outputs' squared norm."
        )
    else:
        yield (
            f"--max-kl limits the sum of KL divergence and of the squared error of {numbers}, "
            "which are no classes. Leave out what does not matter, by --output NAME=ignore."
        )


def to_target(compressor: Compressor, target: Target) -> Point:
    """The best point that keeps a target.

    Where it has been looked for before, and a cache remembers it, it is only made again, and still
    has to keep the target: another machine rounds otherwise. Where another target has, the search
    begins with what was found then.

    Raises:
        TargetError: none does; the message says what can be had.
        CalibrationError: the damage cannot be measured on such data.
    """
    start = _start(compressor, target)
    method = compressor.method
    found: list[Point] = []

    def sought() -> list[float]:
        seek = _to_size if target.is_size else _to_damage
        found.append(seek(compressor, target, start, method))
        return [found[0].slope]

    (slope,) = compressor.remembered("slope", sought, target, *compressor.storage)
    if not found:
        point = compressor.point(slope, method=method)
        if _keeps(compressor, target, point):
            return point
        sought()
    return found[0]


def _keeps(compressor: Compressor, target: Target, point: Point) -> bool:
    if target.is_size:
        return point.nbytes <= _limit(compressor, target)
    return _limited(target, point) <= target.value


def _start(compressor: Compressor, target: Target) -> float:
    """A slope to begin with."""
    ladders = list(compressor.ladders.values())
    if target.is_size:
        original, limit = compressor.job.model, _limit(compressor, target)
        size = sum(weight.size for weight in compressor.weights)
        rest = original.nbytes - 4 * size
        return slope_for_bits(ladders, min(max(8 * (limit - max(rest, 0)) / size, 0.1), 8.0))
    if target.kind == "drop":
        return slope_for_bits(ladders, 3.0)
    return compressor.slope_for(target.value)


def _limit(compressor: Compressor, target: Target) -> int:
    original = compressor.job.model
    return target.nbytes(original.nbytes, count_parameters(original))


def _to_size(compressor: Compressor, target: Target, start: float, method: Method) -> Point:
    limit = _limit(compressor, target)

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
        known={slope: nbytes for slope, nbytes, *_ in compressor.trials(method).rows},
    )
    kept = [t.outcome for t in trials if t.value <= limit]
    if not kept:
        least = min(t.outcome.nbytes for t in trials)
        raise TargetError(
            f"{limit} bytes cannot be reached: the smallest file that was found has {least}. Most "
            "of that is the graph and what is left alone; `onnxrd pack` makes these smaller, too."
        )
    measured = [replace(p, damage=compressor.measure(p.quantization)) for p in kept]
    full = [point for point in measured if point.nbytes > (1 - NEAR) * limit] or measured
    order = [min(full, key=_damage), *measured]
    best = order[best_of([_smooth(point) for point in order], [0.0] * len(order))]
    if not math.isfinite(_damage(best)):
        raise TargetError(
            f"outputs are not finite in any file of {limit} bytes or less that was tried: allow "
            "more, or leave out the weights that are divided by, by --exclude."
        )
    return best


def _smooth(point: Point) -> Floats:
    assert point.damage is not None
    return point.damage.smooth


def _damage(point: Point) -> float:
    assert point.damage is not None
    damage = point.damage.distortion
    return damage if math.isfinite(damage) else math.inf


def _limited(target: Target, point: Point) -> float:
    """That damage of a point which the target limits."""
    assert point.damage is not None
    if not math.isfinite(point.damage.distortion):
        return RUIN
    value = {
        "kl": point.damage.distortion,
        "error": point.damage.relative,
        "drop": point.damage.drop,
    }[target.kind]
    if value is None or value != value:
        raise CalibrationError(_NOT_MEASURED[target.kind])
    return value


def _to_damage(compressor: Compressor, target: Target, start: float, method: Method) -> Point:
    def attempt(slope: float) -> tuple[float, Point]:
        point = compressor.point(slope, method=method)
        return _limited(target, point), point

    place = {"kl": 2, "error": 3, "drop": 4}[target.kind]
    rows = compressor.trials(method).rows
    trials = search(
        attempt,
        start,
        target.value,
        rising=True,
        within=WITHIN["damage"],
        narrow=NARROW,
        bounds=compressor.bounds,
        known={row[0]: row[place] for row in rows if not math.isnan(row[place])},
    )
    kept: list[Trial[Point]] = [t for t in trials if t.value <= target.value]
    if not kept:
        best = min(trials, key=lambda t: t.value)
        if best.value == RUIN:
            raise TargetError(_NOT_MEASURED["kl"])
        raise TargetError(
            f"a {target.kind} of {target.value:g} cannot be kept on the held-out samples: the "
            f"least that was found is {best.value:.3g}, at {best.outcome.nbytes} bytes."
        )
    return min(kept, key=lambda t: t.outcome.nbytes).outcome


_NOT_MEASURED = {
    "drop": "a drop of accuracy cannot be measured: the data have no labels, or the outputs are no "
    "classes. Give labels, or --max-kl.",
    "error": "a relative error is for outputs that are no classes, and some are taken for classes: "
    "give --max-kl, or if they are numbers --task regression.",
    "kl": "the damage is not a number: the outputs are not finite on some held-out sample.",
}
