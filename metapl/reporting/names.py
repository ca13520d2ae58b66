"""What networks, methods and losses are called in a report, and how their lines look."""

from __future__ import annotations

from metapl import methods
from metapl.reporting.drawing import INK
from metapl.reporting.figures import Style

VERMILLION, BLUE, GREEN, PINK, ORANGE, SKY, GREY = (f"C{place}" for place in range(7))

PALETTE = {
    "vermillion": VERMILLION,
    "blue": BLUE,
    "green": GREEN,
    "pink": PINK,
    "orange": ORANGE,
    "sky": SKY,
    "grey": GREY,
    "ink": INK,
}
"""The colours by name."""

NETWORKS = {
    name: (network.title, Style(PALETTE[network.colour], network.dash, network.width))
    for name, network in methods.networks().items()
}
"""In the order of the table."""

METHODS = {name: methods.find(name).title for name in methods.METHODS}
"""What each method is called."""

LOSSES = {
    "supervised": ("labelled examples", Style(VERMILLION)),
    "uda": ("consistency", Style(ORANGE, (4, 2))),
    "student": ("pseudo labels", Style(SKY)),
    "exam": ("exam", Style(BLUE, (4, 2))),
}
"""The curves of the losses, each with its name and style."""

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
