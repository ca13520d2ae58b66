"""The picture of a study for the documentation."""

import math

import matplotlib
import numpy as np
import pytest
from matplotlib import image
from study_runs import EVIL, SEEDS, TARGETS, TOP1, a_study, half, runs_of, top1_of

from metapl.reporting import study_plot
from metapl.studies import results


@pytest.fixture
def figures(monkeypatch):
    found = []

    def make(*args, **options):
        found.append(matplotlib.figure.Figure(*args, **options))
        return found[-1]

    monkeypatch.setattr(study_plot, "Figure", make)
    return found


@pytest.mark.parametrize(("conditions", "down", "across"), [(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 2, 3)])
def test_panels_of_the_picture(tmp_path, figures, conditions, down, across):
    about = a_study(over=range(10, 10 + conditions))
    study_plot.study(results.rows(about, runs_of(about)), tmp_path / "plots" / "arms.png")
    assert image.imread(tmp_path / "plots" / "arms.png").std() > 0.01
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["arms.png"]
    panels = figures[0].axes
    assert panels[0].get_subplotspec().get_gridspec().get_geometry() == (down, across)
    shown = [one for one in panels if one.get_visible()]
    assert [one.get_title() for one in shown] == [f"labels={value}" for value in range(10, 10 + conditions)]


def test_what_the_picture_shows(tmp_path, figures):
    about = a_study()
    runs = [run for run in runs_of(about) if (run["arm"], run["setting"]["labels"]) != (EVIL, 10)]
    study_plot.study(results.rows(about, runs), tmp_path / "arms.png")
    for labels, axes in zip(TARGETS, figures[0].axes, strict=True):
        names = [one.get_text().replace("\n", " ").replace("\\$", "$") for one in figures[0].axes[0].get_yticklabels()]
        order = ["none", "supervised", EVIL]
        assert names == order
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first is on top
        here = [arm for arm in TOP1 if (arm, labels) != (EVIL, 10)]
        dots = [one for one in axes.get_lines() if one.get_alpha()]
        assert len(dots) == len(axes.containers) == len(here)
        for arm, line, container in zip(here, dots, axes.containers, strict=True):
            values = [100 * top1_of(arm, labels, seed) for seed in range(SEEDS)]
            np.testing.assert_allclose(line.get_xdata(), values)
            assert set(line.get_ydata()) == {order.index(arm)}
            middle, _, (bar,) = container.lines
            assert middle.get_xdata() == pytest.approx([np.mean(values)])
            ((start, _), (end, _)) = bar.get_segments()[0]
            assert [start, end] == pytest.approx([np.mean(values) - half(values), np.mean(values) + half(values)])


def test_a_picture_of_a_single_seed(tmp_path, figures):
    about = a_study({"none": {}}, seeds=1, over=(10,))
    study_plot.study(results.rows(about, runs_of(about)), tmp_path / "arms.png")
    (container,) = figures[0].axes[0].containers
    assert not container.has_xerr
    assert not math.isnan(container.lines[0].get_xdata()[0])
