"""HTML and SVG by elements: what is not markup already is escaped, wherever it comes from."""

from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, *content: object, **attributes: object) -> Markup:
    """An element with its content, and attributes (`class_` and `stroke_width` lose their `_`).

    Args:
        name: of the element.
        content: Markup stays as it is; all else is text.
        attributes: those that are None are left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{joined(*content)}</{name}>")


def joined(*content: object) -> Markup:
    """One after the other."""
    return Markup("".join(c if isinstance(c, Markup) else escape(str(c)) for c in content))


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """A table that scrolls sideways if it must.

    Args:
        caption: what it shows.
        header: names of the columns; a leading `>` aligns one to the right.
        rows: cells; the first one of a row is its heading.
    """
    sides = ["n" if name.startswith(">") else None for name in header]

    def line(kind: str, cells: Sequence[object], scope: str) -> Markup:
        first = element("th", cells[0], scope=scope, class_=sides[0])
        others = (
            element(kind, cell, scope="col" if kind == "th" else None, class_=side)
            for cell, side in zip(cells[1:], sides[1:])
        )
        return element("tr", first, *others)

    inside = element(
        "table",
        element("thead", line("th", [name.lstrip(">") for name in header], "col")),
        element("tbody", *(line("td", row, "row") for row in rows)),
        aria_label=caption,
    )
    wide = element("div", inside, class_="wide", tabindex=0, role="region", aria_label=caption)
    return joined(element("p", caption, class_="caption"), wide)
