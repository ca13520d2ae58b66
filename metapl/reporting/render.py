"""Blocks as one HTML page, by templates in which every text is escaped.

Pictures are data URIs, and nothing is asked for from anywhere. The page has no script, and its policy allows none.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from metapl.files import table
from metapl.files.escape import visible
from metapl.reporting.blocks import Head, Section
from metapl.reporting.drawing import THEMES

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The page asks for nothing and runs nothing, whatever the names in the data are."""


def page(head: Head, sections: Sequence[Section]) -> str:
    """A whole document."""
    return _environment().get_template("page.html").render(head=head, sections=sections)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("metapl.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    made.globals |= {
        "policy": POLICY,
        "css": style(),
        "icon": data_uri(resources.files("metapl.reporting").joinpath("templates/icon.svg").read_bytes(), "svg+xml"),
        "text_of": table.text,
        "whole": table.whole,
        "depth": depth,
    }
    made.filters["svg"] = lambda picture: data_uri(picture.encode(), "svg+xml")
    return made


def _shown(value: Any) -> Any:
    return visible(value) if type(value) is str else value  # what is HTML already is a class of its own


def data_uri(content: bytes, kind: str) -> str:
    """A picture inside a page; `kind` as in image/kind."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def depth(count: int, of: int) -> str:
    """How strong the colour of a cell is that has `count` of `of` examples."""
    return f"{0.08 + 0.52 * math.sqrt(count / of):.2f}"


def style() -> str:
    """The style sheet, below the colours of the figures."""
    light, dark = (
        "".join(f"{name}:{colour};" for name, colour in theme.variables.items())
        for theme in (THEMES.light, THEMES.dark)
    )
    sheet = resources.files("metapl.reporting").joinpath("templates/style.css").read_text(encoding="utf-8")
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{sheet}"
