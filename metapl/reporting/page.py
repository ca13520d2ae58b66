"""HTML for a report: elements, tables, figures, the page. Text is escaped wherever it is joined to elements.

Examples:
    >>> from metapl.reporting.page import tag
    >>> tag("p", "1 < 2 ", tag("b", "yes"), class_="note")
    '<p class="note">1 &lt; 2 <b>yes</b></p>'
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple
from urllib.parse import quote

from metapl.files.escape import visible
from metapl.reporting.figures import Style
from metapl.reporting.style import css
from metapl.reporting.svg import VARIABLES

VOID = ("img", "link", "meta")

ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><rect width='16' height='16' rx='4' fill='#0072B2'/>"
    "<path d='M3 12V5l5 5 5-5v7' fill='none' stroke='#fff' stroke-width='2'/></svg>"
)

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The page asks for nothing and runs nothing, whatever the names in the data are."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


class Section(NamedTuple):
    """A part of the page with a heading."""

    title: str
    body: Html


def escaped(text: str) -> str:
    """Text for a page: no element, and nothing that a reader does not see."""
    return html.escape(visible(text))


def join(*parts: str) -> Html:
    """The parts in one; what is not `Html` is escaped."""
    return Html("".join(part if isinstance(part, Html) else escaped(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """An element; `class_` is the attribute class, `aria_label` is aria-label."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{written}>") if name in VOID else Html(f"<{name}{written}>{join(*children)}</{name}>")


def note(*children: str) -> Html:
    """A paragraph that explains."""
    return tag("p", *children, class_="note")


def whole(value: int) -> str:
    """A count, with commas."""
    return f"{value:,}"


def opening(text: str) -> str:
    """A name at the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def _signed(value: float, text: str) -> str:
    return f"−{text}" if value < 0 and any(digit in text for digit in "123456789") else text


def percent(share: float, digits: int = 2) -> str:
    """A share in per cent, without the sign; a dash for NaN."""
    return "–" if math.isnan(share) else _signed(share, f"{abs(100 * share):.{digits}f}")


def number(value: float, digits: int = 3) -> str:
    """A number with so many decimals; a dash for NaN."""
    return "–" if math.isnan(value) else _signed(value, f"{abs(value):,.{digits}f}")


def plus(text: str) -> str:
    """A number that is a difference, with its sign."""
    return text if text[0] in "−–" or not text.strip("0.") else f"+{text}"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    label: str,
    words: Collection[int] = (0,),
    chosen: int = -1,
) -> Html:
    """A table that scrolls by itself where it is too wide.

    Args:
        head: names of the columns.
        rows: cells; the first of each row is its heading.
        label: what the table is, for who cannot see it.
        words: the columns that hold words, the others are figures.
        chosen: a row that stands out.
    """

    def kind(column: int) -> dict[str, str]:
        return {} if column in words else {"class_": "figure"}

    names = [tag("th", name, scope="col", **kind(column)) for column, name in enumerate(head)]
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row", **kind(0)),
            *(tag("td", cell, **kind(column)) for column, cell in enumerate(row[1:], 1)),
            **({"class_": "chosen"} if place == chosen else {}),
        )
        for place, row in enumerate(rows)
    ]
    return scrolling(tag("table", tag("thead", tag("tr", *names)), tag("tbody", *body)), label)


def scrolling(content: Html, label: str) -> Html:
    """Content that scrolls sideways by itself, by keyboard too."""
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=label)


def key(name: str, style: Style) -> Html:
    """An entry of a legend: a piece of the line, and its name."""
    dash = " ".join(str(length * style.width) for length in style.dash)
    look = (
        f"stroke:var({VARIABLES[style.colour.lower()]});stroke-width:{style.width}px;stroke-dasharray:{dash or 'none'}"
    )
    line = tag("svg", tag("path", d="M1 5H27", style=look), viewBox="0 0 28 10", class_="key", aria_hidden="true")
    return tag("li", line, name)


def swatch(name: str, colour: str) -> Html:
    """An entry of a legend: a dot of a colour, and its name."""
    look = f"fill:var({VARIABLES[colour.lower()]})"
    dot = tag("svg", tag("circle", cx="5", cy="5", r="4.5", style=look), viewBox="0 0 10 10", class_="dot")
    return tag("li", dot, name)


def figure(title: str, picture: str, label: str, keys: Sequence[Html] = (), caption: str = "") -> Html:
    """An SVG with its title, its legend and a caption; `label` says what it shows."""
    parts = [tag("h3", title), *([tag("ul", *keys, class_="legend")] if keys else [])]
    parts.append(tag("div", Html(picture), role="img", aria_label=label))
    return tag("figure", *parts, *([tag("figcaption", caption)] if caption else []), class_="card")


def card(*children: str) -> Html:
    """A box."""
    return tag("div", *children, class_="card")


def grid(*children: str) -> Html:
    """Boxes side by side, one below the other where there is no room."""
    return tag("div", *children, class_="grid")


def folded(summary: str, *children: str) -> Html:
    """What is shown when somebody asks for it."""
    return tag("details", tag("summary", summary), *children)


def page(title: str, head: Html, sections: Sequence[Section]) -> Html:
    """A whole document."""
    names = [section.title.lower().replace(" ", "-") for section in sections]
    links = [tag("a", section.title, href=f"#{name}") for name, section in zip(names, sections, strict=True)]
    parts = [
        tag(
            "section",
            tag("h2", section.title, id=f"{name}-heading"),
            section.body,
            id=name,
            aria_labelledby=f"{name}-heading",
        )
        for name, section in zip(names, sections, strict=True)
    ]
    meta = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("link", rel="icon", href="data:image/svg+xml," + quote(ICON)),
    ]
    body = tag("body", tag("header", head, tag("nav", *links, aria_label="Sections")), tag("main", *parts))
    document = tag("html", tag("head", *meta, tag("title", title), tag("style", Html(css()))), body, lang="en-GB")
    return join(Html("<!DOCTYPE html>\n"), document, Html("\n"))
