"""The page of a study in which something went wrong, or is not there."""

import numpy as np
import pytest
from markup import cells, parse
from study_runs import (
    ARMS,
    ENVIRONMENT,
    EVIL,
    SEEDS,
    TARGETS,
    TOP1,
    a_run,
    a_study,
    compared,
    ends,
    judged,
    picture,
    runs_of,
)

from metapl.reporting import study as reporting
from metapl.studies import specification

pytestmark = pytest.mark.usefixtures("unpainted")


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
