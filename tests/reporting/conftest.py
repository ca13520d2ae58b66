"""What is drawn on a page of a study, in place of the pictures."""

import pytest
from matplotlib.figure import Figure

from metapl.reporting import drawing, study_figures
from metapl.reporting.drawing import Picture


@pytest.fixture
def strips(monkeypatch):
    """The rows of the pictures of runs and of differences, and whether zero is marked."""
    found = {}

    def draw(name, rows, zero=False):
        found[name] = ({row.name: row.values for row in rows}, zero)
        return Picture("", "")

    monkeypatch.setattr(study_figures.strips, "strips", draw)
    return found


@pytest.fixture
def lines(monkeypatch):
    """The lines of the curves that are drawn."""
    found = {}

    def curves(name, lines, unit):
        found[name] = {line.name: line.curve for line in lines}
        return Picture("", "")

    monkeypatch.setattr(study_figures.figures, "curves", curves)
    return found


@pytest.fixture
def unpainted(monkeypatch):
    """Figures are drawn but not painted as SVG, which takes most of the time of a page."""

    def svg(name, height, draw, theme):
        draw(Figure(layout="constrained"))
        return "<svg/>"

    monkeypatch.setattr(drawing, "_svg", svg)
