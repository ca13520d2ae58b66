"""The pictures on the page of a study: a dot for every run, differences of the same seed, curves."""

import statistics

import numpy as np
import pytest
from markup import parse
from study_runs import ENVIRONMENT, EVIL, SEEDS, TARGETS, TOP1, a_study, ends, runs_of, signed, top1_of

from metapl.reporting import study as reporting
from metapl.reporting import study_figures

pytestmark = pytest.mark.usefixtures("unpainted")


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
