"""What a page is made of, as data: nothing here knows of HTML.

A section of a report is a sequence of blocks. The template `templates/blocks.html` has a macro for each of them, by its
`kind`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from metapl.files.table import Table
from metapl.reporting.drawing import Picture


@dataclass(frozen=True)
class Code:
    """A word of a program."""

    text: str


Text: TypeAlias = str | Sequence[str | Code]
"""A text, or the parts of one."""


@dataclass(frozen=True)
class Paragraph:
    """A text by itself."""

    text: Text
    look: Literal["note", "warning"] = "note"
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Rows:
    """A table, which scrolls by itself where it is too wide."""

    table: Table
    kind: ClassVar[str] = "rows"


@dataclass(frozen=True)
class Words:
    """Words, and what they mean."""

    meanings: Mapping[str, str]
    kind: ClassVar[str] = "words"


@dataclass(frozen=True)
class Folded:
    """What is shown when somebody asks for it."""

    summary: str
    blocks: Sequence[Block]
    kind: ClassVar[str] = "folded"


@dataclass(frozen=True)
class Card:
    """A box with a heading; without one if that is empty."""

    title: str
    blocks: Sequence[Block]
    kind: ClassVar[str] = "card"


@dataclass(frozen=True)
class Grid:
    """Boxes side by side, one below the other where there is no room."""

    blocks: Sequence[Block]
    kind: ClassVar[str] = "grid"


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    name: str
    css: str
    """The look of the mark."""
    mark: Literal["line", "dot"]


@dataclass(frozen=True)
class Figure:
    """A picture with its title, its legend and what stands below."""

    title: str
    picture: Picture
    label: str
    """What it shows, for a reader who cannot see it."""
    keys: Sequence[Key] = ()
    caption: Sequence[Block | str] = ()
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Tile:
    """A number that matters."""

    name: str
    value: str
    unit: str
    below: str


@dataclass(frozen=True)
class Tiles:
    """Numbers that matter, side by side."""

    tiles: Sequence[Tile]
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True)
class Matrix:
    """Counts by class: row the class, column what was predicted."""

    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    upright: bool
    """Whether the names above have room as they are; otherwise they stand on end."""
    kind: ClassVar[str] = "matrix"


@dataclass(frozen=True)
class Thumbnail:
    """A small picture with what it was taken for."""

    source: str
    """A data URI."""
    size: tuple[int, int]
    """Width and height of the original."""
    crisp: bool
    """Whether its pixels are shown as squares."""
    alt: str
    truth: str
    """Its class, or the label that it has; empty where nobody knows."""
    predicted: str
    """What a network takes it for; empty where none was asked."""
    below: str
    name: str = ""
    """What it is called, in a line of its own."""


@dataclass(frozen=True)
class Gallery:
    """Small pictures."""

    thumbnails: Sequence[Thumbnail]
    kind: ClassVar[str] = "gallery"


Block: TypeAlias = Paragraph | Rows | Words | Folded | Card | Grid | Figure | Tiles | Matrix | Gallery
"""What a page is made of."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    title: str
    blocks: Sequence[Block]

    @property
    def name(self) -> str:
        """Of its place in the page."""
        return self.title.lower().replace(" ", "-")


@dataclass(frozen=True)
class Head:
    """The beginning of a page."""

    title: str
    lede: Text
    facts: Mapping[str, str]
    origin: Text = ""
    """Where it comes from, above the title."""
    warning: str = ""
