"""The figures of a report: their SVG stands beside others, and their axes are asked what they show."""

import json
import math
import re
import warnings
from functools import partial
from unittest import mock

import numpy as np
import pytest
from markup import parse
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from reports import ROWS, finished, reading
from sklearn.datasets import make_moons

from metapl.core import rng
from metapl.reporting import facts, figures, mistakes, style, svg
from metapl.reporting.facts import Bin
from metapl.reporting.figures import Dot, Line, Plane, Style
from metapl.reporting.plots import COLOURS

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return partial(finished, tmp_path_factory)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, as they are before they become SVG."""
    found = []

    def draw(name, height, draw):
        found.append(Figure())
        draw(found[-1])
        return name

    monkeypatch.setattr(figures, "drawn", draw)
    return found


LINES = [
    Line("one", Style(COLOURS[0]), [(5, 1.0), (10, 0.5), (15, math.nan), (20, 0.25)]),
    Line("other", Style(COLOURS[1], (4, 2)), [(5, 3.0), (10, 2.0), (15, 1.0), (20, 1.5)]),
]


def test_curves_show_their_numbers(drawn):
    figures.curves("x", LINES, "nats", (10, 20))
    (axes,) = drawn[0].axes
    for line, shown in zip(LINES, axes.get_lines(), strict=True):
        np.testing.assert_array_equal(np.transpose(shown.get_data()), line.curve)
        assert to_hex(shown.get_color()) == line.style.colour.lower()
        assert (shown.get_linestyle() == "--") == bool(line.style.dash)
    (shade,) = axes.patches
    box = shade.get_window_extent().transformed(axes.transData.inverted())
    assert (box.x0, box.x1) == pytest.approx((10, 20))
    assert axes.get_title() == "nats"


def test_one_report_is_a_point(drawn):
    figures.curves("x", [Line("one", Style(COLOURS[0]), [(4, 1.0)])], "nats")
    assert drawn[0].axes[0].get_lines()[0].get_marker() == "o"


def test_dots_stand_in_the_order_of_their_rows(drawn):
    figures.dots("x", [Dot(str(value), Style(COLOURS[0]), value, 2.0) for value in (80.0, 90.0)], "%")
    (axes,) = drawn[0].axes
    assert [line.get_xydata().tolist() for line in axes.get_lines()] == [[[80, 0]], [[90, 1]]]
    assert axes.get_ylim() == (1.5, -0.5)
    bars = [bar.get_segments()[0].tolist() for bar in axes.collections]
    assert bars == [[[78, 0], [82, 0]], [[88, 1], [92, 1]]]


def test_a_reliability_diagram(drawn):
    """Too sure in the first bin, not sure enough in the second; the third is empty."""
    bins = [Bin(0.0, 0.2, 8, 0.15, 0.05), Bin(0.2, 0.4, 1200, 0.3, 0.36), Bin(0.4, 0.6, 0, math.nan, math.nan)]
    figures.reliability("x", bins)
    upper, lower = drawn[0].axes
    boxes = {}
    for bar in upper.patches:
        boxes.setdefault(to_hex(bar.get_facecolor()), []).append((bar.get_y(), bar.get_height()))
    accuracy, more, less = ([*boxes[colour.lower()]] for _, colour in figures.GAPS)
    assert np.array([accuracy, more, less]) == pytest.approx(
        np.array([[(0, 5), (0, 30)], [(5, 0), (30, 6)], [(5, 10), (30, 0)]])
    )
    assert [bar.get_x() + bar.get_width() / 2 for bar in lower.patches] == pytest.approx([10, 30])
    assert [bar.get_height() for bar in lower.patches] == [8, 1200]
    assert [text.get_text() for text in lower.texts] == ["8", "1.2k"]


def test_the_plane(drawn):
    points = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 1.0]])
    axes = np.linspace(-1, 4, 11), np.linspace(-1, 2, 7)
    regions = np.tile((axes[0] > 1.6).astype(int), (7, 1))
    figures.plane("x", Plane(points, np.array([0, 1, 1, 1]), np.array([1]), axes, regions))
    (shown,) = drawn[0].axes
    marked = {}
    for line in shown.get_lines():
        marked.setdefault((line.get_marker(), to_hex(line.get_color())), []).extend(line.get_xydata().tolist())
    zero, one = (figures.class_colour(label).lower() for label in (0, 1))
    assert marked == {("o", zero): [[0, 0]], ("x", zero): [], ("o", one): [[2, 0], [3, 1]], ("x", one): [[1, 0]]}
    left, right = (fill.get_paths()[0].get_extents() for fill in shown.collections)
    assert (left.x0, right.x1) == (-1, 4)
    assert left.x1 == pytest.approx(1.75) == right.x0


def test_no_more_points_than_a_page_can_hold(drawn):
    points = rng.normal(rng.key(0), (5000, 2)).numpy()
    flat = np.linspace(-1, 1, 3), np.linspace(-1, 1, 3)
    figures.plane("x", Plane(points, np.zeros(5000, int), np.arange(0), flat, np.zeros((3, 3), int)))
    assert 300 < sum(len(line.get_xydata()) for line in drawn[0].axes[0].get_lines()) <= figures.POINTS


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0k"),
        (9949, "9.9k"),
        (9999, "10k"),
        (128_000, "128k"),
        (999_499, "999k"),
        (999_501, "1.0M"),
        (14_200_000, "14M"),
    ],
)
def test_counts_are_short(count, text):
    assert figures.short(count) == text


# ---------------------------------------------------------------- of a run


def test_points_are_where_they_were_and_regions_where_they_are(made):
    """scikit-learn's own points; the region at a point is what the network says of it."""
    one, seen = made("reduced"), []
    with reading(one.data), mock.patch.object(figures, "plane", lambda name, plane: seen.append(plane) or ""):
        mistakes.mistakes(facts.gather(one.folder, "cpu"))
    points = make_moons(n_samples=2400, noise=0.1, random_state=0)[0][1200:]
    np.testing.assert_allclose(seen[0].points, points, atol=1e-6)
    assert sorted(seen[0].wrong) == np.flatnonzero(one.probabilities().argmax(-1) != one.y).tolist()
    column, row = (np.abs(axis[:, None] - points[:, i]).argmin(0) for i, axis in enumerate(seen[0].axes))
    assert (seen[0].regions[row, column] == one.probabilities().argmax(-1)).mean() > 0.99


def lines_of(one):
    return [json.loads(line) for line in (one.folder / "metrics.jsonl").read_text().splitlines()]


def ends(one, title):
    """What a figure's description says of the ends of its curves."""
    (figure,) = [figure for figure in one.page.all("figure") if figure.one("h3").text == title]
    said = figure.one("div", role="img").attributes["aria-label"].partition("at the end: ")[2]
    keys = [item.text for item in figure.all("li")]
    assert [re.sub(r" [\d.e-]+$", "", part) for part in re.split(r"(?<=\d), ", said)] == (keys or ["feedback"])
    return said


def test_curves_of_a_run_are_those_of_its_log(made):
    one = made("mpl")
    last = {line["phase"]: line for line in lines_of(one)}
    rows = last["mpl"]["validation"] | {
        "finetuned": last["finetune"]["validation"]["model"],
        **{name: last[name]["validation"]["ema"] for name in ("supervised", "pseudo-labels", "uda")},
    }
    expected = [f"{text} {100 * rows[name]['top1']:.4g}" for name, text in ROWS.items() if name in rows]
    assert ends(one, "Validation accuracy") == ", ".join(expected)
    losses = last["mpl"]["metrics"]
    said = {"teacher: labelled examples": "supervised", "teacher: consistency": "uda"}
    said |= {"student: pseudo labels": "student", "student: exam": "exam"}
    assert ends(one, "Losses") == ", ".join(f"{text} {losses[name]:.4g}" for text, name in said.items())
    assert ends(one, "Size of the feedback") == f"feedback {losses['feedback']:.4g}"
    quality = last["mpl"]["pseudo_labels"]
    assert f"accuracy {100 * quality['accuracy']:.4g}" in ends(one, "Pseudo labels")
    assert f"share of confident ones {100 * quality['coverage']:.4g}" in ends(one, "Pseudo labels")


# ---------------------------------------------------------------- SVG


def test_figures_do_not_get_in_each_others_way():
    one, other = (svg.drawn(name, 100, lambda figure: figure.subplots().plot([0, 1], "o--")) for name in ("a", "b"))
    parse(one + other)
    ids = [re.findall(r' id="([^"]*)"', picture) for picture in (one, other)]
    assert all(ids)
    assert len({*ids[0], *ids[1]}) == len(ids[0]) + len(ids[1])
    for picture, own in zip((one, other), ids, strict=True):
        assert set(re.findall(r'href="#([^"]+)|url\(#([^)]+)', picture)) <= {(x, "") for x in own} | {
            ("", x) for x in own
        }
        assert "<style" not in picture
        assert not re.search("http|xlink", picture)


def test_the_page_gives_colours_and_letters():
    def draw(figure):
        axes = figure.subplots()
        for colour in COLOURS:
            axes.plot([0, 1], color=colour)
        axes.set_title("accuracy, %")

    picture = svg.drawn("a", 100, draw)
    assert "accuracy, %" in [one.text for one in parse(picture).all("text")]
    assert not re.search(r"#[0-9a-fA-F]{6}\b|font-family|font:", picture)
    assert {f"--c{index}" for index in range(len(COLOURS))} < set(re.findall(r"var\((--\w+)\)", picture))
    for variable in svg.VARIABLES.values():
        assert style.css().count(f"{variable}:") == 2  # light and dark


@pytest.mark.parametrize(
    "written",
    [
        "font: 10.5px 'DejaVu Sans', sans-serif; text-anchor: middle",
        "font-size: 10.5px; font-family: 'DejaVu Sans', sans-serif; text-anchor: middle",
    ],
)
def test_letters_as_releases_of_matplotlib_have_written_them(written):
    picture = svg.embedded(f'<svg viewBox="0 0 1 1"><text style="{written}">x</text></svg>', "a")
    assert re.search(r'style="font-size: 10.5px; text-anchor: middle"', picture)


def test_nothing_warns():
    """Of letters that a font has not, for one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.curves("x", LINES, "nats")
