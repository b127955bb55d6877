"""Reports as one HTML page each that needs nothing else: no script, no network, no other file."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from onnxrd.graph.specs import format_shape
from onnxrd.report.curve import BOUND, DAMAGES, Curve, CurvePoint, Series
from onnxrd.report.markup import Markup, element, table
from onnxrd.report.result import Layer, Result
from onnxrd.report.style import STYLE
from onnxrd.report.svg import chart, mark, mark_of_bound
from onnxrd.report.tables import head_lines, nbytes

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What browsers may load for a page: nothing."""

READING = (
    "A layer's share of the distortion is ½ Σ h Δ², as its importance h predicts it, before what "
    "error feedback makes good. Bytes in other encodings are those of the weight on its own."
)
READING_THE_BOUND = (
    "Shannon's bound: no compressor of independent weights needs less for the distortion that this "
    "importance predicts; the graph and all that is left alone are counted on top. Error feedback "
    "knows more of the network than this importance does, and need not stay above."
)

COLUMNS = (
    "weight",
    "role",
    "shape",
    ">bits",
    ">of the distortion",
    ">bytes",
    "method",
    ">levels",
    ">step",
    ">not zero",
    "stored as",
    "instead of",
)


def page(title: str, *content: Markup) -> str:
    """A whole document."""
    head = element(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    body = element("body", element("main", element("h1", title), *content))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def result_page(result: Result) -> str:
    """What `onnxrd compress --report` writes: one file and its layers."""
    before, after = result.nbytes
    lead = _lead(
        f"{nbytes(before)} → {nbytes(after)}",
        f": {result.ratio:.2f} × smaller, {result.bits_per_weight:.2f} bits for each of its "
        f"{result.parameters:,} numbers, the whole file counted. Verified at every optimization "
        "level of onnxruntime.",
    )
    return page(
        f"{result.path.name}, compressed",
        lead,
        *_measured(result),
        _layers(result),
        *_notes(result.skipped, result.warnings),
    )


def curve_page(curve: Curve) -> str:
    """What `onnxrd curve` writes: the curve, all points, and the layers of each file of ours."""
    best, ours = curve.chosen, curve.series[0]
    original = "" if curve.accuracy is None else f" (original {curve.accuracy:.2%})"
    lead = _lead(
        f"{nbytes(curve.nbytes)} → {nbytes(best.nbytes)}",
        f", {best.result.ratio:.1f} × smaller, at {best.summary}{original}. Each mark is a plain "
        ".onnx file that was written, verified at every optimization level of onnxruntime, and "
        f"measured on {curve.samples} {curve.measured_on} samples.",
    )
    return page(
        f"Rate–distortion curve of {curve.model.name}",
        lead,
        element("figure", chart(curve), _legend(curve)),
        _comparison(curve),
        element("h2", "Every file"),
        *(_points(curve, series) for series in curve.series),
        element("h2", "Layer by layer"),
        *(_details(point, curve.warnings, point is best) for point in ours.points),
        *_notes(best.result.skipped, curve.warnings),
        *([element("p", READING_THE_BOUND, class_="dim")] if curve.bound else []),
    )


def _lead(strong: str, text: str) -> Markup:
    return element("p", element("strong", strong), text, class_="lead")


def _legend(curve: Curve) -> Markup:
    keys = [(mark(number), series.title) for number, series in enumerate(curve.series)]
    if curve.bound:
        keys.append((mark_of_bound(), BOUND))
    items = (element("li", key, " ", title) for key, title in keys)
    return element("figcaption", element("ul", *items, class_="legend"))


def _comparison(curve: Curve) -> Markup:
    """Bytes of each method at equal damage, and how many times ours that is."""
    reached = [d for d in DAMAGES if curve.series[0].nbytes_at(d) is not None]

    def cell(series: Series, damage: float) -> str:
        found, ours = series.nbytes_at(damage), curve.series[0].nbytes_at(damage)
        if found is None or ours is None:
            return "–"
        return nbytes(found) + ("" if series is curve.series[0] else f" (× {found / ours:.2f})")

    rows = [(f"{d:g}", *(cell(series, d) for series in curve.series)) for d in reached]
    caption = f"Bytes at equal damage, between the nearest files ({curve.measure})"
    return table(caption, [curve.chosen.unit, *(f">{s.title}" for s in curve.series)], rows)


def _points(curve: Curve, series: Series) -> Markup:
    labelled = curve.accuracy is not None
    header = ["setting", ">file", ">packed", ">bits", f">{curve.chosen.unit}", ">±", ">predicted"]
    rows = [
        (
            point.setting,
            nbytes(point.nbytes),
            nbytes(point.packed),
            f"{point.result.bits_per_weight:.2f}",
            f"{point.damage:.3g}",
            f"{point.standard_error:.1g}",
            "" if (d := point.result.predicted) is None else f"{d:.3g}",
            *([f"{point.accuracy:.2%}"] if labelled else []),
        )
        for point in series.points
    ]
    return table(series.title, header + [">accuracy"] * labelled, rows)


def _details(point: CurvePoint, said: Sequence[str], opened: bool) -> Markup:
    """One file of ours, with what has to be said of it alone."""
    title = f"{nbytes(point.nbytes)}, {point.summary}"
    about = element("summary", element("strong", title), f" ({point.setting})")
    own = [element("p", w) for w in point.result.warnings if w not in said]
    return element("details", about, *own, _layers(point.result), open="" if opened else None)


def _layers(result: Result) -> Markup:
    total = sum(layer.distortion for layer in result.layers) or 1.0
    widest = max((layer.bits for layer in result.layers), default=1.0)
    largest = max((layer.distortion for layer in result.layers), default=1.0) or 1.0
    rows = [
        (
            element("span", layer.name, class_="name"),
            layer.role,
            format_shape(layer.shape),
            _bar(f"{layer.bits:.2f}", layer.bits / widest),
            _bar(f"{layer.distortion / total:.1%}", layer.distortion / largest),
            nbytes(layer.nbytes),
            layer.method + (f" (importance: {layer.proxy})" if layer.proxy else ""),
            "" if layer.levels is None else layer.levels,
            "" if layer.step is None else f"{layer.step:.3g}",
            f"{layer.kept:.1%}",
            layer.encoding,
            _rivals(layer),
        )
        for layer in result.layers
    ]
    return table("Weights: what was chosen for each, and what else there was", COLUMNS, rows)


def _rivals(layer: Layer) -> Markup:
    """The cheapest other encodings."""
    others = sorted(layer.rivals.items(), key=lambda item: item[1])[:3]
    return element("span", ", ".join(f"{k} {nbytes(v)}" for k, v in others), class_="why")


def _bar(text: str, part: float) -> Markup:
    return element("span", text, class_="bar", style=f"--part:{100 * part:.1f}%")


def _measured(result: Result) -> Iterator[Markup]:
    """What was measured at each output."""
    if result.evaluation is not None:
        lines = [line for head in result.evaluation.heads for line in head_lines(head)]
        items = (element("li", line) for line in lines)
        yield element("p", f"Measured on {result.evaluation.samples} samples:")
        yield element("ul", *items)


def _notes(skipped: Mapping[str, str], warnings: Sequence[str]) -> Iterator[Markup]:
    """What was left alone, and what the user should know."""
    notes = [f"{n} left alone: {why}" for why, n in sorted(Counter(skipped.values()).items())]
    if notes or warnings:
        yield element("h2", "Notes")
        yield element("ul", *(element("li", note) for note in (*warnings, *notes)))
    yield element("p", READING, class_="dim")
