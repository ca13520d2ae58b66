"""The figures of a report: their SVG stands beside others, and their axes are asked what they show."""

import base64
import io
import math
import re
import warnings

import numpy as np
import pytest
import torch
from markup import parse
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import metrics, rng
from metapl.plots import COLOURS
from metapl.report import facts, figures, head, log, mistakes, page, style, svg
from metapl.report.facts import Bin
from metapl.report.figures import Dot, Line, Plane, Style


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
    assert (shade.get_x(), shade.get_width()) == (10, 10)
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
        assert "http" not in picture


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


# ---------------------------------------------------------------- log, facts, words


def line(phase, step, validation, **more):
    return {
        "phase": phase,
        "step": step,
        "validation": {name: {"top1": value} for name, value in validation.items()},
    } | more


LOG = [
    line("supervised", 5, {"model": 0.1, "ema": 0.2}, metrics={"supervised": 2.0}),
    line(
        "mpl", 5, {"teacher": 0.4, "student": 0.5, "ema": 0.6}, metrics={"exam": 2.0}, pseudo_labels={"accuracy": None}
    ),
    line(
        "mpl", 9, {"teacher": 0.7, "student": 0.8, "ema": 0.9}, metrics={"exam": 1.0}, pseudo_labels={"accuracy": 0.5}
    ),
    line("finetune", 3, {"model": 0.95, "ema": 0.91}, metrics={"supervised": 0.3}),
]


def test_validation_goes_on_from_the_averaged_student():
    assert log.validation(LOG) == {
        "supervised": [(5, 0.2)],
        "teacher": [(5, 0.4), (9, 0.7)],
        "student": [(5, 0.5), (9, 0.8)],
        "ema": [(5, 0.6), (9, 0.9)],
        "finetuned": [(9, 0.9), (12, 0.95)],
    }


def test_curves_of_a_phase():
    assert log.phases(LOG) == ["supervised", "mpl"]
    assert log.curves(LOG, "mpl", "metrics") == {"exam": [(5, 2.0), (9, 1.0)]}
    ((_, unknown), known) = log.curves(LOG, "mpl", "pseudo_labels")["accuracy"]
    assert math.isnan(unknown)
    assert known == (9, 0.5)
    assert log.curves(LOG, "supervised", "pseudo_labels") == {}


def test_differences_have_the_error_of_pairs():
    """Of ten examples three were gained and one was lost."""
    one, other = (
        torch.tensor([1, 1, 1, 0, 1, 1, 0, 0, 0, 0]).bool(),
        torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 0, 0]).bool(),
    )
    assert facts.hits(one, other) == pytest.approx((0.2, 0.2))
    gap = facts.means(torch.tensor([1.0, 2.0, 6.0]).double(), torch.tensor([0.0, 0.0, 0.0]).double())
    assert gap == pytest.approx((3.0, math.sqrt(7 / 3)))


def test_what_logits_say():
    logits, y = rng.normal(rng.key(0), (50, 8)), torch.arange(50) % 8
    judged = facts.judge(logits, y)
    torch.testing.assert_close(judged.nll, F.cross_entropy(logits.double(), y, reduction="none"))
    torch.testing.assert_close(judged.of_truth, logits.double().softmax(-1)[torch.arange(50), y])
    assert judged.among_five.double().mean().item() == metrics.top5(logits, y)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (9600, "2 h 40 min")]
)
def test_durations(seconds, text):
    assert head.duration(seconds) == text


def test_numbers_are_written_in_one_way():
    assert [page.percent(0.12345), page.percent(-0.001, 1), page.percent(-0.0001, 1), page.percent(math.nan)] == [
        "12.35",
        "−0.1",
        "0.0",
        "–",
    ]
    assert [page.number(-1234.5, 1), page.number(0.0004)] == ["−1,234.5", "0.000"]
    assert [page.plus(text) for text in ("1.2", "−1.2", "0.00", "–", "10.0")] == ["+1.2", "−1.2", "0.00", "–", "+10.0"]
    assert [head.size(2**20), head.size(3 * 2**29)] == ["1 MiB", "1.5 GiB"]


def test_what_is_no_html_is_escaped_once():
    inner = page.tag("b", "<&>", title='"')
    assert page.join("<", inner) == '&lt;<b title="&quot;">&lt;&amp;&gt;</b>'


@pytest.mark.parametrize(("size", "expected"), [((3, 300, 150), (64, 128)), ((1, 40, 128), (128, 40))])
def test_large_pictures_are_made_smaller(size, expected, tmp_path):
    image = rng.randint(rng.key(0), size, 256).to(torch.uint8)

    found = Image.open(io.BytesIO(base64.b64decode(mistakes.png(image).partition(",")[2])))
    assert found.size == expected
    assert found.mode == ("L" if size[0] == 1 else "RGB")


COLUMNS = [
    {"name": "a", "kind": "number", "mean": 10.0, "std": 2.0, "missing": True},
    {"name": "b", "kind": "category", "categories": ["", "x", "y"]},
    {"name": "c", "kind": "number", "mean": 0.0, "std": 0.0, "missing": True},
    {"name": "d", "kind": "number", "mean": 1.0, "std": 1.0, "missing": False},
]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([-2.0, 0, 0, 1, 0, 0, 0.5], ["a 6 (−2.0 σ)", "b = x (50 %)", "d 1.5 (+0.5 σ)"]),
        ([0.0, 1, 1, 0, 0, 1, -1.0], ["a missing (4 %)", "b = missing (10 %)", "c missing (20 %)"]),
    ],
)
def test_what_is_unusual_about_a_row(row, expected):
    """Features: a, whether it is missing, b's three categories, whether c is missing, d."""
    mean = torch.tensor([0.0, 0.04, 0.1, 0.5, 0.4, 0.2, 0.0]).double()
    std = torch.where(torch.tensor([True, False, False, False, False, False, True]), 1.0, (mean * (1 - mean)).sqrt())
    assert mistakes.deviations(COLUMNS, torch.tensor(row).double(), mean, std) == expected
