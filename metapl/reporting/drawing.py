"""Matplotlib's figures as SVG, one for a light page and one for a dark one.

A figure names its colours by their place in the cycle of a theme, as matplotlib does: "C0" to "C6", and `INK` and
`SOFT`. The letters are drawn by the program that shows the page, so that no font has to hold them all.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
"""Okabe and Ito's, which the colour-blind can tell apart, and a grey."""

INK, SOFT = f"C{len(COLOURS)}", f"C{len(COLOURS) + 1}"
"""The colour of text, and a weaker one."""

WIDTH = 400
"""Of a figure, in units of which its text is 10.5 high."""


class Theme(NamedTuple):
    """The colours of a page."""

    ink: str
    soft: str
    grid: str
    colours: tuple[str, ...]

    @property
    def cycle(self) -> list[str]:
        """What "C0", "C1", … are."""
        return [*self.colours, self.ink, self.soft]

    @property
    def variables(self) -> dict[str, str]:
        """The variables of CSS that the style sheet and `variable` name."""
        own = {f"--c{index}": colour for index, colour in enumerate(self.colours)}
        return {"--ink": self.ink, "--soft": self.soft, "--grid": self.grid, **own}


class Themes(NamedTuple):
    """Both."""

    light: Theme
    dark: Theme


THEMES = Themes(
    Theme("#1a1f26", "#586270", "#e3e7ec", COLOURS),
    # As far from each other as the light ones, and lighter.
    Theme(
        "#e8ebef", "#9aa5b3", "#2c323b", ("#f0823a", "#409ee0", "#20bd8e", "#e0a0c4", "#f0b434", "#90d0f5", "#9aa4b0")
    ),
)
"""The light and the dark page."""


class Picture(NamedTuple):
    """A figure as SVG."""

    light: str
    dark: str


def variable(colour: str) -> str:
    """The colour of a figure as the style sheet has it."""
    names = [*(f"--c{index}" for index in range(len(COLOURS))), "--ink", "--soft"]
    return f"var({names[int(colour.removeprefix('C'))]})"


def _settings(theme: Theme) -> dict[Any, Any]:
    return {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10.5,
        "text.parse_math": False,  # names of the data may have dollars in them
        "axes.prop_cycle": cycler(color=theme.cycle),
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.titlecolor": theme.soft,
        "axes.edgecolor": theme.grid,
        "axes.labelcolor": theme.soft,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "text.color": theme.ink,
        "xtick.color": theme.soft,
        "ytick.color": theme.soft,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "lines.solid_joinstyle": "round",
    }


def drawn(name: str, height: float, draw: Callable[[Figure], None]) -> Picture:
    """A figure in both themes.

    Args:
        name: one of its own in the page; the same name gives the same file.
        height: in the units of `WIDTH`.
        draw: draws in the empty figure.
    """
    return Picture(*(_svg(name, height, draw, theme) for theme in THEMES))


def _svg(name: str, height: float, draw: Callable[[Figure], None], theme: Theme) -> str:
    text = io.StringIO()
    unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({**_settings(theme), "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # the reader's fonts draw it
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        draw(figure)
        figure.savefig(text, format="svg", metadata=unsaid, transparent=True)
    return text.getvalue()
