"""What a report is made of before it is a page: the log as curves, differences, numbers as text, pictures, rows."""

import base64
import io
import math

import pytest
import torch
from PIL import Image
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.core import rng
from metapl.evaluation import metrics
from metapl.reporting import facts, head, log, mistakes, render
from metapl.reporting.blocks import Code, Head, Paragraph, Section


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


def test_an_example_at_the_end_of_a_bin_is_in_it():
    def bins(confidence):
        y = torch.zeros(len(confidence), dtype=torch.int64)
        return facts.reliability(facts.Judged(y, confidence, confidence, confidence, y == 0), y)

    ends = torch.tensor([one.high for one in bins(torch.zeros(0).double())], dtype=torch.float64)
    assert ends.tolist() == pytest.approx([place / 15 for place in range(1, 16)])
    assert [(one.examples, one.confidence) for one in bins(ends)] == [(1, end) for end in ends.tolist()]


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


def test_sizes():
    assert [head.size(2**20), head.size(3 * 2**29)] == ["1 MiB", "1.5 GiB"]


def test_what_is_no_html_is_escaped_once():
    page = render.page(Head("<&>", ("<", Code("<&>")), {'"': "a"}), [Section('"', [Paragraph("&lt;")])])
    assert '<p class="lede">&lt;<code>&lt;&amp;&gt;</code></p>' in page
    assert 'href="#&#34;"' in page
    assert '<p class="note">&amp;lt;</p>' in page
    assert page.count("&lt;&amp;&gt;") == 3  # the title, the heading, the code


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
