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
from scipy import stats
from sklearn.datasets import make_moons

from metapl.core import rng
from metapl.reporting import drawing, facts, figures, mistakes, render, strips
from metapl.reporting.drawing import COLOURS, Picture
from metapl.reporting.facts import Bin
from metapl.reporting.figures import Dot, Line, Plane, Style
from metapl.reporting.strips import Strip

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
    monkeypatch.setattr(strips, "drawn", draw)
    return found


LINES = [
    Line("one", Style("C0"), [(5, 1.0), (10, 0.5), (15, math.nan), (20, 0.25)]),
    Line("other", Style("C1", (4, 2)), [(5, 3.0), (10, 2.0), (15, 1.0), (20, 1.5)]),
]


def test_curves_show_their_numbers(drawn):
    figures.curves("x", LINES, "nats", (10, 20))
    (axes,) = drawn[0].axes
    for line, shown in zip(LINES, axes.get_lines(), strict=True):
        np.testing.assert_array_equal(np.transpose(shown.get_data()), line.curve)
        assert shown.get_color() == line.style.colour
        assert (shown.get_linestyle() == "--") == bool(line.style.dash)
    (shade,) = axes.patches
    box = shade.get_window_extent().transformed(axes.transData.inverted())
    assert (box.x0, box.x1) == pytest.approx((10, 20))
    assert axes.get_title() == "nats"


def test_one_report_is_a_point(drawn):
    figures.curves("x", [Line("one", Style("C0"), [(4, 1.0)])], "nats")
    assert drawn[0].axes[0].get_lines()[0].get_marker() == "o"


def test_dots_stand_in_the_order_of_their_rows(drawn):
    figures.dots("x", [Dot(str(value), Style("C0"), value, 2.0) for value in (80.0, 90.0)], "%")
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
    accuracy, more, less = ([*boxes[to_hex(colour)]] for _, colour in figures.GAPS)
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
        marked.setdefault((line.get_marker(), line.get_color()), []).extend(line.get_xydata().tolist())
    zero, one = (figures.class_colour(label) for label in (0, 1))
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
    with (
        reading(one.data),
        mock.patch.object(figures, "plane", lambda name, plane: seen.append(plane) or Picture("", "")),
    ):
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
    said = figure.one("img").attributes["alt"].partition("at the end: ")[2]
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


# ---------------------------------------------------------------- studies


def test_strips(drawn):
    """A dot a seed, and between them the mean with its interval; none of a single seed."""
    rows = [Strip("a", Style("C1"), [50.0, 52.0, 47.0]), Strip("b", Style("C0", (4, 2)), [60.0])]
    strips.strips("x", rows, zero=True)
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_ylim() == (1.5, -0.5)
    zero, *lines = axes.get_lines()
    assert list(zero.get_xdata()) == [0, 0]
    dots, means = lines[0::2], lines[1::2]
    for place, (row, line, mean) in enumerate(zip(rows, dots, means, strict=True)):
        assert list(line.get_xdata()) == row.values
        assert all(abs(height - place) < 0.5 for height in line.get_ydata())
        assert {line.get_color(), mean.get_color()} == {row.style.colour}
        assert mean.get_xydata().tolist() == [[pytest.approx(np.mean(row.values)), place]]
        assert (mean.get_markerfacecolor() == "none") == bool(row.style.dash)
    low, high = stats.t.interval(0.95, 2, np.mean(rows[0].values), stats.sem(rows[0].values))
    (bar,) = [one.get_segments()[0][:, 0].tolist() for one in axes.collections]
    assert bar == pytest.approx([low, high])


def test_without_differences_zero_is_not_marked(drawn):
    strips.strips("x", [Strip("a", Style("C1"), [50.0])])
    assert len(drawn[0].axes[0].get_lines()) == 2


# ---------------------------------------------------------------- SVG


def colours_of(picture):
    return set(re.findall(r"#[0-9a-f]{6}\b", picture))


def test_a_figure_has_the_colours_of_the_page_and_its_letters():
    def draw(figure):
        axes = figure.subplots()
        for place in range(len(COLOURS)):
            axes.plot([0, 1], color=f"C{place}")
        axes.set_title("accuracy, %", color=drawing.INK)

    for picture, theme in zip(drawing.drawn("a", 100, draw), drawing.THEMES, strict=True):
        assert "accuracy, %" in [one.text for one in parse(picture[picture.index("<svg") :]).all("text")]
        expected = {colour.lower() for colour in (*theme.colours, theme.ink, theme.soft, theme.grid)}
        assert colours_of(picture) - {"#000000"} == expected


def test_the_style_sheet_has_the_colours_of_both_themes():
    light, _, dark = render.style().partition("@media")
    for sheet, theme in ((light, drawing.THEMES.light), (dark, drawing.THEMES.dark)):
        for name, colour in theme.variables.items():
            assert f"{name}:{colour};" in sheet
    used = set(re.findall(r"var\((--\w+)\)", render.style()))
    assert used <= set(re.findall(r"(--\w+):", render.style())) | {"--share"}


def test_a_key_looks_like_its_line():
    assert figures.key("x", Style("C1")).css == "height:2px;background:var(--c1)"
    dashed = figures.key("x", Style(drawing.INK, (4, 2), 2.5)).css
    ground = "repeating-linear-gradient(to right,var(--ink) 0px 10px,#0000 10px 15px)"
    assert dashed == f"height:2.5px;background:{ground}"


@pytest.mark.parametrize("name", ["a $x$ $", "日本", "\u202e<b>", "x" * 70])
def test_names_of_arms_are_drawn_as_they_are(name):
    """Dollars are no formula, letters that a font lacks no warning, and what turns the line round is written out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        light, _ = strips.strips("x", [Strip(name, Style("C1"), [1.0, 2.0])])
    texts = [one.text for one in parse(light[light.index("<svg") :]).all("text")]
    wanted = name.replace("\u202e", "\\u202e")
    assert wanted.replace(" ", "") in "".join(texts).replace(" ", "")


def test_the_same_figure_twice_is_the_same_file():
    assert figures.curves("x", LINES, "nats") == figures.curves("x", LINES, "nats")
