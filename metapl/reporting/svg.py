"""Matplotlib's figures as SVG that can stand in a page beside others.

Text stays text, and its font is the page's. Colours are the page's too, by variables, so that a dark page has dark
figures. No text of the data may be drawn: matplotlib would read dollars in it as formulas, and its font has not every
letter. Names belong in the page's legends.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from metapl.reporting.plots import COLOURS

INK, SOFT, GRID = "#111111", "#777777", "#dddddd"

VARIABLES = {INK: "--ink", SOFT: "--soft", GRID: "--grid"} | {
    colour.lower(): f"--c{index}" for index, colour in enumerate(COLOURS)
}
"""The page's variable for each colour that a figure may have."""

WIDTH = 400
"""Of a figure, in units of which its text is 10.5 high."""

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": SOFT,
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def drawn(name: str, height: float, draw: Callable[[Figure], None]) -> str:
    """The SVG of a figure.

    Args:
        name: one of its own in the page, of letters and hyphens.
        height: in the units of `WIDTH`.
        draw: draws in the empty figure.
    """
    text = io.StringIO()
    unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        draw(figure)
        figure.savefig(text, format="svg", metadata=unsaid, transparent=True)
    return embedded(text.getvalue(), name)


def embedded(svg: str, name: str) -> str:
    """An SVG file of matplotlib's as an element of a page: identifiers begin with `name`, looks are the page's."""
    body = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    size = re.search(r'viewBox="([^"]*)"', body)
    assert size, "matplotlib gives every figure a viewBox"
    body = body[body.index(">") + 1 :].replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", body)
    body = re.sub(r" ?font-family: [^;\"]*;?", "", body)
    for colour, variable in VARIABLES.items():
        body = re.sub(rf"{colour}\b", f"var({variable})", body)
    return f'<svg viewBox="{size[1]}" aria-hidden="true">' + re.sub(r"\s+", " ", body)
