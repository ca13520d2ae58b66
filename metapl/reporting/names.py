"""What networks, methods and losses are called in a report, and how their lines look."""

from __future__ import annotations

from metapl.reporting.drawing import INK
from metapl.reporting.figures import Style

VERMILLION, BLUE, GREEN, PINK, ORANGE, SKY, GREY = (f"C{place}" for place in range(7))

NETWORKS = {
    "supervised": ("supervised only", Style(GREY, (4, 2))),
    "pseudo-labels": ("pseudo labels", Style(PINK, (4, 2))),
    "uda": ("UDA", Style(ORANGE, (4, 2))),
    "fixed": ("fixed teacher", Style(INK, (1, 2))),
    "teacher": ("teacher", Style(VERMILLION)),
    "student": ("student", Style(SKY, (), 1.4)),
    "ema": ("student, averaged", Style(BLUE)),
    "finetuned": ("finetuned", Style(GREEN, (), 2.6)),
}
"""In the order of the table."""

METHODS = {
    "mpl": "Meta Pseudo Labels",
    "reduced": "Reduced Meta Pseudo Labels",
    "uda": "UDA",
    "pseudo-labels": "pseudo labels",
    "supervised": "supervised learning",
}

LOSSES = {
    "supervised": ("labelled examples", Style(VERMILLION)),
    "uda": ("consistency", Style(ORANGE, (4, 2))),
    "student": ("pseudo labels", Style(SKY)),
    "exam": ("exam", Style(BLUE, (4, 2))),
}

OWNERS = {"supervised": "teacher: ", "uda": "teacher: ", "student": "student: ", "exam": "student: "}
"""Whose a loss is where two networks learn."""

QUALITY = {
    "accuracy": ("accuracy", Style(BLUE)),
    "confident": ("accuracy of confident ones", Style(GREEN, (1, 1.5), 2.6)),
    "coverage": ("share of confident ones", Style(GREY, (4, 2))),
}
"""Of pseudo labels."""


def opening(text: str) -> str:
    """A name at the beginning of a sentence."""
    return text[:1].upper() + text[1:]
