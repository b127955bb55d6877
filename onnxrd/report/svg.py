"""The curve as inline SVG, coloured by the style of the page around it."""

import math
from dataclasses import dataclass

from onnxrd.report.curve import Curve, Series
from onnxrd.report.markup import Markup, element, joined
from onnxrd.report.tables import nbytes

WIDTH, HEIGHT = 680, 430
LEFT, RIGHT, TOP, BOTTOM = 78, 68, 12, 60

MARKS = (
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z",
    "M-4.5,-4.5h9v9h-9z",
    "M0,-6.5l6.5,6.5l-6.5,6.5l-6.5,-6.5z",
    "M0,-6l6,10.5h-12z",
)
"""Outlines of what stands for a file: one for each series."""


@dataclass(frozen=True)
class Frame:
    """Maps damage, in logarithms, and bytes, from zero, to places in the drawing.

    Attributes:
        damage: the least and the most.
        nbytes: the most.
    """

    damage: tuple[float, float]
    nbytes: float

    def x(self, damage: float) -> float:
        """From the left."""
        low, high = map(math.log, self.damage)
        return round(LEFT + (math.log(damage) - low) / (high - low) * (WIDTH - LEFT - RIGHT), 2)

    def y(self, nbytes: float) -> float:
        """From the top."""
        return round(HEIGHT - BOTTOM - nbytes / self.nbytes * (HEIGHT - TOP - BOTTOM), 2)


def decades(low: float, high: float) -> list[float]:
    """1, 3, 10, 30, … between two numbers."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [digit * 10.0**exponent for exponent in exponents for digit in (1, 3)]
    return [number for number in found if low <= number <= high]


def round_numbers(most: float, about: int = 8) -> list[float]:
    """0, and multiples of 1, 2 or 5 times a power of ten up to a number."""
    rough = most / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
    return [step * k for k in range(int(most / step) + 1)]


def chart(curve: Curve) -> Markup:
    """Bytes against damage: a line with marks for each series, and the bound."""
    shown = Frame(*curve.window)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    inside = element(
        "svg",
        _bound(curve, shown),
        *(_line(series, shown, number) for number, series in enumerate(curve.series)),
        x=LEFT,
        y=TOP,
        width=width,
        height=height,
        viewBox=f"{LEFT} {TOP} {width} {height}",
    )
    label = f"File size against {curve.measure}, for {len(curve.series)} methods"
    return element(
        "svg",
        _axes(curve, shown),
        inside,
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=label,
    )


def mark(number: int) -> Markup:
    """The mark of a series, alone, for the legend."""
    path = element("path", d=MARKS[number % len(MARKS)])
    line = element("line", x1=-14, x2=14, y1=0, y2=0)
    return element(
        "svg", line, path, class_=f"key s{number}", viewBox="-14 -8 28 16", aria_hidden="true"
    )


def mark_of_bound() -> Markup:
    """The line of the bound, alone, for the legend."""
    line = element("line", class_="bound", x1=-14, x2=14, y1=0, y2=0)
    return element("svg", line, class_="key", viewBox="-14 -8 28 16", aria_hidden="true")


def _axes(curve: Curve, shown: Frame) -> Markup:
    floor, parameters = HEIGHT - BOTTOM, curve.chosen.result.parameters
    parts = []
    for damage in decades(*shown.damage):
        x = shown.x(damage)
        parts.append(element("line", class_="grid", x1=x, x2=x, y1=TOP, y2=floor))
        parts.append(element("text", f"{damage:g}", x=x, y=floor + 22, text_anchor="middle"))
    for size in round_numbers(shown.nbytes):
        y = shown.y(size)
        parts.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        parts.append(element("text", nbytes(size), x=LEFT - 8, y=y + 5, text_anchor="end"))
    for bits in round_numbers(8 * shown.nbytes / max(parameters, 1)):
        y = shown.y(bits * parameters / 8)
        parts.append(element("text", f"{bits:g}", x=WIDTH - RIGHT + 8, y=y + 5))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(element("text", curve.measure, x=middle, y=HEIGHT - 8, text_anchor="middle"))
    turned = f"translate({WIDTH - 10},{(TOP + floor) / 2}) rotate(-90)"
    parts.append(
        element("text", "bits per weight, whole file", transform=turned, text_anchor="middle")
    )
    return joined(*parts)


def _path(places: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x},{y}" for x, y in places)


def _bound(curve: Curve, shown: Frame) -> Markup:
    places = [(shown.x(damage), shown.y(size)) for damage, size in curve.bound if damage > 0]
    return element("path", class_="bound", d=_path(places)) if places else Markup()


def _line(series: Series, shown: Frame, number: int) -> Markup:
    points = series.drawable
    if not points:
        return Markup()
    places = [(shown.x(p.damage), shown.y(p.nbytes)) for p in points]
    marks = [
        element(
            "path",
            element("title", f"{series.title}, {p.setting}: {nbytes(p.nbytes)}, {p.summary}"),
            d=MARKS[number % len(MARKS)],
            transform=f"translate({x},{y})",
        )
        for p, (x, y) in zip(points, places)
    ]
    return element(
        "g", element("path", class_="line", d=_path(places)), *marks, class_=f"s{number}"
    )
