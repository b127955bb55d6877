"""The rate–distortion curve of a network: one preparation, many files, several methods."""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from onnxrd import archive
from onnxrd.allocation.ladder import slope_for_bits
from onnxrd.calibration import Calibration
from onnxrd.calibration import load as load_data
from onnxrd.errors import ImportanceError, ModelError, SettingError
from onnxrd.graph.model import PathLike, atomic_output, load, scratch
from onnxrd.importance import Importance
from onnxrd.options import Options
from onnxrd.pipeline.compressor import Compressor, prepared_compressor
from onnxrd.pipeline.job import files_of
from onnxrd.pipeline.output import finish
from onnxrd.pipeline.rivals import Quantize, Rival, rivals, shannon_bound
from onnxrd.progress import Track
from onnxrd.quantizers import Shelf
from onnxrd.report.curve import Curve, CurvePoint, Series, curve_csv, curve_data
from onnxrd.report.data import to_json
from onnxrd.report.pages import curve_page
from onnxrd.report.plots import plot_curve
from onnxrd.report.result import Result

T = TypeVar("T")

DAMAGE = (3e-4, 0.3)
"""Nats, or relative squared error, between which the points lie, roughly."""

TITLE = "onnxrd compress: one slope, error feedback"


def curve(
    model: PathLike,
    output: PathLike,
    *,
    data: Any,
    evaluation: Any = None,
    points: int = 10,
    keep: bool = False,
    importance: PathLike | Importance | None = None,
    options: Options | None = None,
) -> Curve:
    """Compress a network to many sizes, by several methods, and measure each file.

    Writes curve.csv, curve.json, curve.html, and where matplotlib is installed curve.png.

    Args:
        model: path of the original.
        output: folder to write to; made if there is none.
        data: calibration data in any form that `onnxrd.calibration.load` takes.
        evaluation: data to measure on; None for the quarter of the calibration samples that nothing
            is fitted to.
        points: how many of the method of `onnxrd.compress`.
        keep: leave the compressed networks in the folder, too.
        importance: measured before; a path or a value.
        options: see there.

    Raises:
        OnnxrdError: see `onnxrd.errors`; nothing has been written then.
    """
    if points < 2:
        raise SettingError(f"{points} points make no curve: take 2 or more.")
    original, folder, options = load(model), Path(output), options or Options()
    never = (*original.files, *files_of(data, evaluation, importance))
    with _made(folder), atomic_output(folder / "curve.html", never=never) as page:
        unseen = evaluation and load_data(evaluation, original.inputs)
        place = _Place(options.track)
        forced = replace(options, force=True, track=place)
        compressor = prepared_compressor(original, data, importance, forced)
        measured_on = unseen or compressor.held_out_data
        files = _Files(compressor, measured_on, page.parent, folder, place, keep)
        drawn = _drawn(files, points, "held-out calibration" if unseen is None else "evaluation")
        _write(drawn, page)
        return drawn


class _Place:
    """Shows progress, and which part of the whole it is in.

    Attributes:
        name: of the part.
    """

    def __init__(self, track: Track) -> None:
        self._track, self.name = track, ""

    def __call__(self, things: Iterable[T], what: str, total: int) -> Iterable[T]:
        """See `Track`."""
        return self._track(things, self.name + what, total)


class _Files:
    """Writes and measures one file after the other.

    Args:
        compressor: everything prepared.
        data: the samples to measure on.
        inside: the folder to write to.
        folder: where the files will be, if they are kept.
        place: told which file it is.
        keep: leave the files in the folder.
    """

    def __init__(
        self,
        compressor: Compressor,
        data: Calibration,
        inside: Path,
        folder: Path,
        place: _Place,
        keep: bool,
    ) -> None:
        self.compressor, self._data = compressor, data
        self._inside, self._folder = inside, folder
        self._place, self._keep = place, keep

    def ours(self, name: str, slope: float) -> CurvePoint:
        """A file by the method of `onnxrd.compress`."""

        def write(temporary: Path, path: Path) -> Result:
            point = self.compressor.point(slope, measured=False)
            return self.compressor.write(point, temporary, path, self._data)

        return self._point(name, f"slope {slope:.3g}", write)

    def quantized(self, name: str, setting: str, title: str, quantize: Quantize) -> CurvePoint:
        """A file with all weights quantized by a simpler method."""
        job, weights = self.compressor.job, self.compressor.weights

        def write(temporary: Path, path: Path) -> Result:
            shelf = Shelf(scratch(temporary))
            pairs = job.options.track(zip(weights, quantize(weights)), "quantizing", len(weights))
            done = {weight: shelf.put(quantized) for weight, quantized in pairs}
            measured_on, skipped = replace(job, data=self._data), self.compressor.skipped
            methods = {weight.name: title for weight in weights}
            return finish(measured_on, done, skipped, temporary, path, methods=methods)

        return self._point(name, setting, write)

    def _point(self, name: str, setting: str, write: Callable[[Path, Path], Result]) -> CurvePoint:
        self._place.name = f"{name}: "
        temporary = self._inside / f"{name}.onnx"
        result = write(temporary, self._folder / temporary.name)
        packed = archive.pack(temporary, scratch(temporary) / "packed").nbytes[1]
        shutil.rmtree(scratch(temporary))
        if self._keep:
            return CurvePoint(setting, result, packed, temporary.name)
        for file in self._inside.glob(f"{temporary.name}*"):
            file.unlink()
        return CurvePoint(setting, result, packed)


def _drawn(files: _Files, points: int, measured_on: str) -> Curve:
    """All series, the bound, and what has to be said."""
    job, weights = files.compressor.job, files.compressor.weights
    warnings = list(job.warnings)
    series = [Series("onnxrd", TITLE, tuple(_our_points(files, points)))]
    series += [_series(files, rival) for rival in rivals(job.model, job.importance)]
    bound: tuple[tuple[float, float], ...] = ()
    try:
        bound = shannon_bound(job.model, job.importance, weights, series[0].points[0])
    except ImportanceError as error:
        warnings.append(f"Shannon's bound is not drawn: {error}")
    said = [w for s in series for p in s.points for w in p.result.warnings if w not in job.warnings]
    if said:
        warnings.append(f"{len(said)} files have warnings, the first: {said[0]}")
    if not find_spec("matplotlib"):
        warnings.append("no curve.png without matplotlib: pip install 'onnxrd[plot]'.")
    model = job.model
    return Curve(model.path, model.nbytes, measured_on, tuple(series), bound, tuple(warnings))


def _series(files: _Files, rival: Rival) -> Series:
    points = (
        files.quantized(f"{rival.name}-{setting.split()[0]}", setting, rival.title, quantize)
        for setting, quantize in rival.settings.items()
    )
    return Series(rival.name, rival.title, tuple(points))


def _our_points(files: _Files, count: int) -> Iterator[CurvePoint]:
    for number, slope in enumerate(_slopes(files.compressor, count), 1):
        yield files.ours(f"onnxrd-{number:02}", slope)


def _slopes(compressor: Compressor, count: int) -> list[float]:
    """Slopes for damages spread evenly over `DAMAGE` in logarithms, if it rises in proportion."""
    relative = all(head.task == "regression" for head in compressor.network.heads)
    middle = math.sqrt(math.prod(DAMAGE))
    slope = slope_for_bits(list(compressor.ladders.values()), 3.0)
    for _ in range(2):
        damage = compressor.point(slope).damage
        assert damage is not None
        found, least = damage.relative if relative else damage.distortion, middle / 1000
        slope *= middle / (found if found > least else least)
        slope = float(np.clip(slope, *compressor.bounds))
    wanted = np.geomspace(*DAMAGE, count) / middle * slope
    return [float(slope) for slope in np.unique(wanted.clip(*compressor.bounds))]


def _write(drawn: Curve, page: Path) -> None:
    page.write_text(curve_page(drawn), encoding="utf8")
    page.with_name("curve.csv").write_text(curve_csv(drawn), encoding="utf8")
    page.with_name("curve.json").write_text(to_json(curve_data(drawn)) + "\n", encoding="utf8")
    if find_spec("matplotlib"):
        plot_curve(drawn, page.with_name("curve.png"))


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder exists, and does not stay if it is new and something fails."""
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"{folder} is a file. Give the name of a folder to write to.")
    new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ModelError(f"cannot make the folder {folder} ({error.strerror}).") from error
    try:
        yield
    except BaseException:
        if new:
            with suppress(OSError):  # somebody has put something there
                folder.rmdir()
        raise
