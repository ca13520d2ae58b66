"""Pictures: their files are read back, and their axes are asked what they show."""

import json

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import image

from metapl.core import rng
from metapl.core.types import Model, Variables
from metapl.reporting import plots

mpl.use("Agg")

DPI = 150
BLUE, ORANGE = (0xCF, 0xE2, 0xF3), (0xFC, 0xE5, 0xCD)  # the regions of class 0 and of class 1


def half_plane(direction):
    """Class 1 where the direction points."""
    params = {"direction": torch.tensor(direction)}

    def apply(params, buffers, x, *, train, key=None):
        score = x @ params["direction"]
        return torch.stack([-score, score], dim=-1), buffers

    return Model(lambda key: (params, {}), apply), Variables(params, {})


def points():
    """A grid of positions whose class is the sign of the first coordinate."""
    x = torch.cartesian_prod(torch.linspace(-1, 1, 10), torch.linspace(-1, 1, 10))
    return x, (x[:, 0] > 0).long()


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is drawn, with its axes."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of the backend

    drawn, subplots = [], plt.subplots

    def record(*args, **options):
        drawn.append(subplots(*args, **options))
        return drawn[-1]

    monkeypatch.setattr(plt, "subplots", record)
    return drawn


def pixels(path):
    found = image.imread(path)
    assert found.std() > 0.01, "the picture is blank"
    return found


def draw_regions(path, *directions):
    networks = {f"network {index}": half_plane(direction) for index, direction in enumerate(directions)}
    plots.regions(networks, points(), torch.tensor([0, 99]), path)
    return pixels(path)


@pytest.mark.parametrize("count", [1, 3])
def test_regions_are_side_by_side(tmp_path, count):
    found = draw_regions(tmp_path / "plots" / "regions.png", *[[1.0, 0.0]] * count)
    assert found.shape[:2] == (int(3.4 * DPI), int(3.6 * count * DPI))
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["regions.png"]


@pytest.mark.parametrize(
    ("direction", "first_half"),
    [
        ([1.0, 0.0], lambda rows, columns: columns),
        ([-1.0, 0.0], lambda rows, columns: -columns),
        ([0.0, 1.0], lambda rows, columns: -rows),
        ([0.0, -1.0], lambda rows, columns: rows),
    ],
)
def test_regions_lie_where_their_class_is(tmp_path, direction, first_half):
    """Rows of a picture go down, the second coordinate goes up."""
    found = np.round(255 * draw_regions(tmp_path / "x.png", direction)[..., :3])
    zero, one = (np.argwhere((found == colour).all(-1)).mean(0) for colour in (BLUE, ORANGE))
    height, width = found.shape[:2]
    assert first_half(*zero) < first_half(*one)
    assert np.abs(one - zero).max() > 0.3 * min(height, width)
    assert np.abs(one - zero).min() < 0.05 * min(height, width)


def test_titles_of_regions_say_how_many_points_are_right(tmp_path, figures):
    """The sign of the first coordinate is the class; that of the second says nothing of it."""
    draw_regions(tmp_path / "x.png", [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0])
    ((_, axes),) = figures
    assert [one.get_title() for one in axes[0]] == ["network 0: 100.0 %", "network 1: 0.0 %", "network 2: 50.0 %"]


def test_known_points_are_marked(tmp_path, figures):
    draw_regions(tmp_path / "x.png", [1.0, 0.0])
    ((_, axes),) = figures
    everyone, known = axes[0, 0].collections[-2:]
    np.testing.assert_allclose(everyone.get_offsets(), points()[0])
    np.testing.assert_allclose(known.get_offsets(), points()[0][[0, 99]])


def line(phase, step, metrics, validation):
    rows = {name: {"top1": value, "nll": 1.0, "ece": 0.1} for name, value in validation.items()}
    return {"phase": phase, "step": step, "metrics": metrics, "validation": rows, "images_per_second": 1.0}


LOG = [
    *[line("supervised", step, {"supervised": 2.0}, {"model": 0.1, "ema": 0.2}) for step in (5, 10)],
    line("mpl", 5, {"supervised": 1.5, "exam": 2.5, "feedback": 99.0}, {"teacher": 0.4, "student": 0.5, "ema": 0.6}),
    line("mpl", 10, {"supervised": 1.0, "exam": 2.0, "feedback": 99.0}, {"teacher": 0.7, "student": 0.8, "ema": 0.9}),
    line("finetune", 3, {"supervised": 0.5}, {"model": 0.95, "ema": 0.95}),
]


def draw_curves(folder, lines):
    log = folder / "metrics.jsonl"
    log.write_text("".join(json.dumps(one) + "\n" for one in lines))
    plots.curves(log, folder / "plots" / "curves.png")
    return pixels(folder / "plots" / "curves.png")


def shown(axes):
    labels = [one.get_label() for one in axes.get_lines()]
    assert len(labels) == len(set(labels))
    return {one.get_label(): (list(one.get_xdata()), list(one.get_ydata())) for one in axes.get_lines()}


def test_curves(tmp_path, figures):
    assert draw_curves(tmp_path, LOG).shape[:2] == (4 * DPI, 11 * DPI)
    ((_, axes),) = figures
    left, right = axes[0]
    assert shown(left) == {"supervised": ([5, 10], [1.5, 1.0]), "exam": ([5, 10], [2.5, 2.0])}
    found = shown(right)
    expected = {"supervised only": [20, 20], "teacher": [40, 70], "student": [50, 80], "student, averaged": [60, 90]}
    assert all(steps == [5, 10] for steps, _ in found.values())
    assert {name: pytest.approx(values) for name, (_, values) in found.items()} == expected


def test_curves_of_a_reduced_run(tmp_path, figures):
    """Its teacher and its student are shown, as those of the whole method are."""
    draw_curves(tmp_path, [{**one, "phase": "reduced"} if one["phase"] == "mpl" else one for one in LOG])
    ((_, axes),) = figures
    found = {name: values for name, (_, values) in shown(axes[0, 1]).items()}
    expected = {"supervised only": [20, 20], "teacher": [40, 70], "student": [50, 80], "student, averaged": [60, 90]}
    assert {name: pytest.approx(values) for name, values in found.items()} == expected
    assert axes[0, 0].get_title() == "losses of Reduced Meta Pseudo Labels"
    lines = {line.get_label(): line.get_linestyle() for line in axes[0, 1].get_lines()}
    assert lines == {"supervised only": "--", "teacher": "-", "student": "-", "student, averaged": "-"}


def test_curves_without_a_validation_part(tmp_path, figures):
    draw_curves(tmp_path, [{**one, "validation": {}} for one in LOG])
    ((_, axes),) = figures
    assert shown(axes[0, 1]) == {}


def test_curves_of_a_baseline(tmp_path, figures):
    draw_curves(tmp_path, LOG[:2])
    ((_, axes),) = figures
    assert list(shown(axes[0, 0])) == ["supervised"]
    assert list(shown(axes[0, 1])) == ["supervised only"]


def test_figures_are_closed(tmp_path):
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of the backend

    before = plt.get_fignums()
    draw_regions(tmp_path / "x.png", [1.0, 0.0])
    assert plt.get_fignums() == before


def test_regions_of_a_real_network(tmp_path):
    from metapl.models import mlp  # noqa: PLC0415 - only here
    from metapl.nn import functional  # noqa: PLC0415 - only here

    model = functional.from_module(lambda: mlp((2,), 2, width=4))
    network = Variables(*model.init(rng.key(0)))
    plots.regions({"initial": (model, network)}, points(), torch.tensor([0]), tmp_path / "x.png")
    pixels(tmp_path / "x.png")
