"""The page of a study: that it is whole, what its tables say, and that names stay text."""

import json
import re

import numpy as np
import pytest
from markup import cells, parse, pictures
from study_runs import ENVIRONMENT, EVIL, SEEDS, TARGETS, TOP1, a_study, compared, judged, runs_of, teacher_of, top1_of

from metapl.reporting import study as reporting
from metapl.reporting.drawing import THEMES


@pytest.fixture(scope="module")
def made():
    about = a_study()
    return reporting.page(about, runs_of(about), ENVIRONMENT)


# ---------------------------------------------------------------- the page


def test_a_page_is_whole_and_asks_for_nothing(made):
    """That it opens and closes is asserted by `parse`."""
    page = parse(made)
    assert made.startswith("<!DOCTYPE html>\n<html lang=")
    assert [one.text for one in page.all("h2")] == ["Results", "Teacher and student", "Training", "Configuration"]
    ids = [one.attributes["id"] for one in page.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)|labelledby="([^"]+)"', made)
    assert {one for found in wanted for one in found if one} == set(ids)
    assert not list(page.all("script"))
    for one in page.all():
        assert not [key for key in one.attributes if key.startswith("on")]
        assert one.attributes.get("href", "#")[:1] == "#" or one.attributes["href"].startswith("data:image/")
    assert not list(page.all("svg"))
    assert len(pictures(page)) == len(list(page.all("figure"))) == 8
    assert all(pictures(page))


def test_a_name_stays_text(made):
    assert EVIL not in made
    assert "<script" not in made
    page = parse(made)
    for label in ("test metrics by arm, labels=10", "teacher and student, labels=40", "arms"):
        assert EVIL in [row[0] for row in cells(page, label)]
    assert sum(one.text == EVIL for one in page.all("li")) == 4  # a legend a curve
    assert sum(one.text == EVIL for one in page.all("span")) == 2 + 2 + 1  # tables, arms
    for label, drawn in pictures(page).items():
        assert [theme.soft in one for theme in THEMES for one in drawn] == [True, False, False, True], label
        assert not re.search("<script|onerror", "".join(drawn)), label
    assert ["platform", "a <b>"] in cells(page, "environment")


def test_the_same_runs_give_the_same_page(made):
    about = a_study()
    assert reporting.page(about, json.loads(json.dumps(runs_of(about))), ENVIRONMENT) == made


@pytest.mark.parametrize("labels", TARGETS)
def test_the_table_of_a_condition(made, labels):
    head, *rows = cells(parse(made), f"test metrics by arm, labels={labels}")
    assert [row[0] for row in rows] == list(TOP1)
    for row in rows:
        values, reference = ([top1_of(arm, labels, seed) for seed in range(SEEDS)] for arm in (row[0], "none"))
        metrics = [judged(value, seed) for seed, value in enumerate(values)]
        found = dict(zip(head, row, strict=True))
        assert found["top-1 %"] == f"{100 * np.mean(values):.2f}"
        assert found["sd"] == f"{100 * np.std(values, ddof=1):.2f}"
        expected = ["reference", "", "", ""] if row[0] == "none" else compared(values, reference)
        assert row[3:7] == expected
        assert found["NLL"] == f"{np.mean([one['nll'] for one in metrics]):.3f}"
        assert found["ECE %"] == f"{100 * np.mean([one['ece'] for one in metrics]):.2f}"
        assert found["seeds"] == "5"
        assert found["network"] == ("supervised only" if row[0] == "supervised" else "student, averaged")


@pytest.mark.parametrize("labels", TARGETS)
def test_teacher_and_student(made, labels):
    head, *rows = cells(parse(made), f"teacher and student, labels={labels}")
    assert [row[0] for row in rows] == ["none", EVIL]
    for row in rows:
        students = [top1_of(row[0], labels, seed) for seed in range(SEEDS)]
        teachers = [teacher_of(value, seed) for seed, value in enumerate(students)]
        assert row[1:3] == [f"{100 * np.mean(values):.2f}" for values in (teachers, students)]
        assert row[3:7] == compared(students, teachers)
        ece = [[judged(one, seed)["ece"] for seed, one in enumerate(values)] for values in (teachers, students)]
        assert row[7:9] == [f"{100 * np.mean(values):.2f}" for values in ece]
    assert head[7:9] == ["teacher ECE", "student ECE"]


@pytest.mark.parametrize("labels", TARGETS)
def test_further_pairs(labels):
    about = a_study(pairs=[[EVIL, "supervised"], ["supervised", "none"]])
    head, *rows = cells(
        parse(reporting.page(about, runs_of(about), ENVIRONMENT)), f"arms against each other, labels={labels}"
    )
    assert head[:2] == ["arm", "minus"]
    assert [tuple(row[:2]) for row in rows] == [*about.pairs]
    for arm, minus, *told in rows:
        both = ([top1_of(name, labels, seed) for seed in range(SEEDS)] for name in (arm, minus))
        assert told == compared(*both)


def test_without_pairs_there_is_no_table_for_them(made):
    assert "against each other" not in made


# ---------------------------------------------------------------- configuration


def test_the_configuration(made):
    page = parse(made)
    assert page.one("h1").text == "Study of 3 arms on digits"
    assert [row[:2] for row in cells(page, "common options")[1:]] == [["steps", "30"], ["balanced", "true"]]
    assert cells(page, "conditions")[1:] == [["labels", "10, 40"]]
    assert cells(page, "arms")[1:] == [
        ["none", "grad = none"],
        [EVIL, "nothing"],
        ["supervised", "method = supervised"],
    ]
    assert cells(page, "environment")[1:] == [["metapl", "0.1.0"], ["torch", "2.13.0"], ["platform", "a <b>"]]
    text = page.one("section", id="configuration").text
    assert "5 seeds" in text
    assert "No step and no network was chosen on it" in text
