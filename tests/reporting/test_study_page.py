"""The page and the picture of a study: their numbers are computed here again, by scipy and the standard library."""

import json
import math
import re
import statistics

import matplotlib
import numpy as np
import pytest
from markup import cells, parse, pictures
from matplotlib import image
from scipy import stats

from metapl.reporting import study as reporting
from metapl.reporting import study_figures, study_plot
from metapl.reporting.drawing import THEMES, Picture
from metapl.studies import results, specification

matplotlib.use("Agg")

EVIL = "<script>alert('1')</script> & $\\frac{1}$"
SEEDS = 5
TARGETS = (10, 40)
ENVIRONMENT = {"metapl": "0.1.0", "torch": "2.13.0", "gpu": None, "platform": "a <b>"}
# By arm, the top-1 of the student for each seed with 10 labels; with 40 it is 0.1 more.
TOP1 = {
    "none": (0.50, 0.52, 0.47, 0.55, 0.51),
    EVIL: (0.58, 0.55, 0.45, 0.61, 0.60),
    "supervised": (0.40, 0.44, 0.41, 0.39, 0.42),
}
TEACHER = 0.03  # less than the student, and as much again for every other seed
ARMS = {"none": {"grad": "none"}, EVIL: {}, "supervised": {"method": "supervised"}}


def a_study(arms=ARMS, seeds=SEEDS, over=TARGETS, **rest):
    tables = {"common": {"steps": 30, "labels": 7, "balanced": True}, "over": {"labels": list(over)}, "arms": arms}
    return specification.build({"seeds": seeds, **tables, **rest}, "here")


def judged(top1, seed=0):
    return {"top1": top1, "top5": 0.9, "nll": 2 - top1 + 0.01 * seed**2, "ece": 0.2 * top1 + 0.02 * seed}


def watched(step, top1):
    """What is seen of a pair on its way, the student finetuned at the end."""
    rows = {"teacher": judged(0.9), "student": judged(0.8), "ema": judged(top1)}
    quality = {"accuracy": top1 / 2, "confident": 0.7, "coverage": 0.1}
    return {"phase": "mpl", "step": step, "metrics": {}, "validation": rows, "pseudo_labels": quality}


def a_run(arm, labels, seed, top1):
    run = {"setting": {"labels": labels} if labels else {}, "arm": arm, "seed": seed, "finite": True}
    if arm == "supervised":
        logs = [
            {
                "phase": "supervised",
                "step": step,
                "metrics": {},
                "validation": {"model": judged(0.01), "ema": judged(step * top1)},
            }
            for step in (1, 2)
        ]
        return {**run, "validation": {}, "test": {"supervised": judged(top1, seed)}, "log": logs}
    # A baseline before and the finetuning after are no part of the curves.
    other = {"metrics": {}, "validation": {"model": judged(0.05), "ema": judged(0.05)}}
    logs = [
        {"phase": "uda", "step": 3, **other},
        *(watched(step, step * top1) for step in (1, 2)),
        {"phase": "finetune", "step": 4, **other},
    ]
    test = {"teacher": judged(teacher_of(top1, seed), seed), "student": judged(0.1), "ema": judged(top1, seed)}
    return {**run, "validation": {}, "test": test, "log": logs}


def teacher_of(top1, seed):
    return top1 - TEACHER * (1 + seed % 2)


def top1_of(arm, labels, seed):
    return TOP1[arm][seed] + (labels == 40) / 10


def runs_of(about):
    return [
        a_run(job.arm, job.condition.get("labels"), seed, top1_of(job.arm, job.condition.get("labels"), seed))
        for job in specification.jobs(about)
        for seed in [job.config.seed]
    ]


@pytest.fixture(scope="module")
def made():
    about = a_study()
    return reporting.page(about, runs_of(about), ENVIRONMENT)


def half(values):
    """Of the 95 % interval of the mean, by scipy's own."""
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return (high - low) / 2


def signed(value):
    return f"{100 * value:+.2f}".replace("-", "−")


def compared(values, reference):
    gaps = np.subtract(values, reference)
    wins, losses = int((gaps > 0).sum()), int((gaps < 0).sum())
    return [
        f"{signed(gaps.mean())} ± {100 * half(gaps):.2f}",
        f"{wins} of {wins + losses}",
        f"{stats.binomtest(wins, wins + losses).pvalue:.2g}",
        f"{stats.ttest_rel(values, reference).pvalue:.2g}",
    ]


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


# ---------------------------------------------------------------- pictures


def picture(page, title):
    (found,) = [one for one in page.all("figure") if one.one("h3").text == title]
    return found


@pytest.fixture
def strips(monkeypatch):
    """The rows of the pictures of runs and of differences, and whether zero is marked."""
    found = {}

    def draw(name, rows, zero=False):
        found[name] = ({row.name: row.values for row in rows}, zero)
        return Picture("", "")

    monkeypatch.setattr(study_figures.strips, "strips", draw)
    return found


def ends(page, title):
    """The means that the description of a picture names."""
    return picture(page, title).one("img").attributes["alt"].partition("; means: ")[2]


@pytest.mark.parametrize(("place", "labels"), [*enumerate(TARGETS)])
def test_every_run_is_a_dot(strips, place, labels):
    about = a_study()
    page = parse(reporting.page(about, runs_of(about), ENVIRONMENT))
    found, zero = strips[f"runs-{place}"]
    assert not zero
    assert list(found) == list(TOP1)
    for arm, shown in found.items():
        assert shown == pytest.approx([100 * top1_of(arm, labels, seed) for seed in range(SEEDS)])
    means = ", ".join(
        f"{arm} {100 * np.mean([top1_of(arm, labels, seed) for seed in range(SEEDS)]):.2f} %" for arm in TOP1
    )
    assert ends(page, f"labels={labels}: top-1 of every run, %") == means


@pytest.mark.parametrize(("place", "labels"), [*enumerate(TARGETS)])
def test_differences_are_of_the_same_seed(strips, place, labels):
    about = a_study()
    page = parse(reporting.page(about, runs_of(about), ENVIRONMENT))
    found, zero = strips[f"differences-{place}"]
    assert zero
    assert list(found) == [EVIL, "supervised"]
    gaps = {arm: [TOP1[arm][seed] - TOP1["none"][seed] for seed in range(SEEDS)] for arm in found}
    for arm, shown in found.items():
        assert shown == pytest.approx([100 * gap for gap in gaps[arm]])
    means = ", ".join(f"{arm} {signed(np.mean(mine))}" for arm, mine in gaps.items())
    assert ends(page, f"labels={labels}: difference to none, points") == means


@pytest.fixture
def lines(monkeypatch):
    """The lines of the curves that are drawn."""
    found = {}

    def curves(name, lines, unit):
        found[name] = {line.name: line.curve for line in lines}
        return Picture("", "")

    monkeypatch.setattr(study_figures.figures, "curves", curves)
    return found


def test_curves_are_means_over_seeds(lines):
    about = a_study()
    reporting.page(about, runs_of(about), ENVIRONMENT)
    assert list(lines) == ["validation-accuracy-0", "pseudo-labels-0", "validation-accuracy-1", "pseudo-labels-1"]
    for place, labels in enumerate(TARGETS):
        means = {arm: statistics.fmean(top1_of(arm, labels, seed) for seed in range(SEEDS)) for arm in TOP1}
        for name, scale, arms in (("validation-accuracy", 100, list(TOP1)), ("pseudo-labels", 50, ["none", EVIL])):
            assert list(lines[f"{name}-{place}"]) == arms
            for arm, curve in lines[f"{name}-{place}"].items():
                assert [step for step, _ in curve] == [1, 2]
                assert [value for _, value in curve] == pytest.approx([scale * means[arm], 2 * scale * means[arm]])


def test_colours_come_again_with_another_dash():
    about = a_study({f"arm {place}": {} for place in range(20)}, against="arm 3")
    looks = study_figures.styles(about)
    assert len({(one.colour, one.dash) for one in looks.values()}) == 20
    assert {one.dash for one in list(looks.values())[:8]} == {()}
    assert looks["arm 3"].colour not in {one.colour for name, one in looks.items() if name != "arm 3"}


# ---------------------------------------------------------------- what went wrong, or is not there


def test_a_run_that_diverged(lines):
    """It has no NLL, and no pseudo labels after the first step."""
    about = a_study()
    runs = runs_of(about)
    (bad,) = [run for run in runs if (run["arm"], run["seed"], run["setting"]["labels"]) == (EVIL, 2, 10)]
    bad["finite"], bad["test"]["ema"]["nll"] = False, None
    bad["log"][2]["pseudo_labels"]["accuracy"] = None
    page = parse(reporting.page(about, runs, ENVIRONMENT))
    assert f"{EVIL} (seed 2)" in page.one("p", class_="warning").text
    assert [one.one("dd").text for one in page.one("dl", class_="facts").all("div")][:2] == ["30 of 30 finished", "1"]
    row = cells(page, "test metrics by arm, labels=10")[2]
    known = [judged(value, seed)["nll"] for seed, value in enumerate(TOP1[EVIL]) if seed != 2]
    assert row[1] == f"{100 * np.mean(TOP1[EVIL]):.2f}"
    assert row[7:10] == [
        f"{np.mean(known):.3f} (4 of 5)",
        f"{100 * np.mean([judged(value, seed)['ece'] for seed, value in enumerate(TOP1[EVIL])]):.2f}",
        "5",
    ]
    first, last = lines["pseudo-labels-0"][EVIL]
    assert first == (1, pytest.approx(50 * np.mean(TOP1[EVIL])))
    assert last == (2, pytest.approx(100 * np.mean([TOP1[EVIL][seed] for seed in (0, 1, 3, 4)])))
    told = picture(page, "labels=10: pseudo labels").one("figcaption").text
    assert f"{EVIL} (1 of 5 runs)" in told
    assert not list(picture(page, "labels=40: pseudo labels").all("figcaption"))


def test_metrics_that_no_run_has(lines):
    about = a_study()
    runs = runs_of(about)
    for run in runs:
        if run["arm"] == "none":
            run["test"]["ema"]["ece"] = None
            for line in run["log"]:
                line.get("pseudo_labels", {})["accuracy"] = None
    page = parse(reporting.page(about, runs, ENVIRONMENT))
    assert cells(page, "test metrics by arm, labels=10")[1][8] == "–"
    assert list(lines["pseudo-labels-0"]) == [EVIL]
    assert "none (5 of 5 runs)" in picture(page, "labels=10: pseudo labels").one("figcaption").text


def test_a_single_seed(strips):
    about = a_study(seeds=1)
    page = parse(reporting.page(about, runs_of(about), ENVIRONMENT))
    row = cells(page, "test metrics by arm, labels=10")[2]
    assert row[1:7] == ["58.00", "–", "+8.00", "1 of 1", "1", "–"]
    assert cells(page, "teacher and student, labels=10")[1][1:7] == ["47.00", "50.00", "+3.00", "1 of 1", "1", "–"]
    assert "nan" not in page.text
    assert strips["differences-0"][0][EVIL] == pytest.approx([8.0])
    assert f"{EVIL} +8.00" in ends(page, "labels=10: difference to none, points")


def test_arms_that_do_the_same():
    """Without any difference there is no span, and nothing to test."""
    about = a_study({"none": {}, "other": {}})
    runs = [a_run(arm, labels, seed, 0.5) for labels in TARGETS for arm in about.arms for seed in range(SEEDS)]
    page = parse(reporting.page(about, runs, ENVIRONMENT))
    assert cells(page, "test metrics by arm, labels=40")[2][3:7] == ["+0.00 ± 0.00", "0 of 0", "1", "1"]


def test_an_arm_without_runs(strips):
    about = a_study({**ARMS, "missing": {}}, against=EVIL)
    runs = [run for run in runs_of(a_study()) if (run["arm"], run["setting"]["labels"]) != (EVIL, 10)]
    page = parse(reporting.page(about, runs, ENVIRONMENT))
    assert [one.text for one in page.all("p", class_="note") if "finished" in one.text] == [
        f"Without a finished run: {EVIL}, missing.",
        "Without a finished run: missing.",
    ]
    rows = cells(page, "test metrics by arm, labels=10")[1:]
    assert [row[0] for row in rows] == ["none", "supervised"]
    assert [row[3:7] for row in rows] == [["–"] * 4] * 2
    assert f"labels=10: difference to {EVIL}, points" not in [one.text for one in page.all("h3")]
    assert list(strips) == ["runs-0", "runs-1", "differences-1"]
    assert list(strips["differences-1"][0]) == ["none", "supervised"]


def test_seeds_that_only_one_arm_has(strips):
    about = a_study()
    runs = [run for run in runs_of(about) if (run["arm"], run["seed"]) != ("none", 1)]
    page = parse(reporting.page(about, runs, ENVIRONMENT))
    both = [0, 2, 3, 4]
    expected = compared([TOP1[EVIL][seed] for seed in both], [TOP1["none"][seed] for seed in both])
    assert cells(page, "test metrics by arm, labels=10")[2][3:7] == expected
    gaps = [100 * (TOP1[EVIL][seed] - TOP1["none"][seed]) for seed in both]
    assert strips["differences-0"][0][EVIL] == pytest.approx(gaps)


def test_a_study_without_runs():
    page = parse(reporting.page(a_study(), [], ENVIRONMENT))
    assert [one.text for one in page.all("h2")] == ["Results", "Configuration"]
    assert not list(page.all("figure"))


def test_runs_without_teacher_and_without_validation():
    """Only the baseline, and nobody looked at it on the way."""
    about = a_study({"supervised": {"method": "supervised"}}, over=(10,))
    runs = [{**run, "log": []} for run in runs_of(about)]
    page = parse(reporting.page(about, runs, ENVIRONMENT))
    assert [one.text for one in page.all("h2")] == ["Results", "Configuration"]


def test_one_condition_is_not_named():
    about = specification.build({"seeds": 2, "arms": {"none": {}, "supervised": {"method": "supervised"}}}, "here")
    page = parse(reporting.page(about, runs_of(about), ENVIRONMENT))
    assert "Top-1 of every run, %" in [one.text for one in page.all("h3")]
    assert len(cells(page, "test metrics by arm, all seeds")) == 3


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


# ---------------------------------------------------------------- the picture for the docs


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
