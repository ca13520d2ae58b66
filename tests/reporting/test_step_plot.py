"""The picture of what steps cost."""

import pytest
from matplotlib.figure import Figure

from metapl.reporting import step_plot


def _row(name, ratio, memory):
    return {
        "name": name,
        "flops_ratio": ratio,
        "time_low": ratio - 0.1,
        "time_ratio": ratio,
        "time_high": ratio + 0.2,
        "peak_memory_bytes": memory,
    }


SCENE = {
    "model": "mlp",
    "shape": (1, 8, 8),
    "batch": 2,
    "ratio": 7,
    "rows": [_row("first", 1.0, 50), _row("b", 1.5, 75)],
}


def test_a_bar_for_each_step_and_measure(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **how: (drawn.append(figure), path.touch()))
    step_plot.step_costs([SCENE, {**SCENE, "model": "wrn"}], tmp_path / "costs.png")
    (figure,) = drawn
    assert len(figure.axes) == 2 * len(step_plot.MEASURES)
    first, *_ = figure.axes
    assert first.get_title(loc="left") == "mlp, 2 + 14 examples of 1×8×8"
    assert [label.get_text() for label in first.get_yticklabels()] == ["first", "b"]
    widths = [[bar.get_width() for bar in axes.patches] for axes in figure.axes[:3]]
    assert widths == [[1.0, 1.5], [1.0, 1.5], [1.0, pytest.approx(75 / 50)]]


def test_the_file(tmp_path):
    step_plot.step_costs([SCENE], tmp_path / "costs.png")
    assert (tmp_path / "costs.png").read_bytes().startswith(b"\x89PNG")
