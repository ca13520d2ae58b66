"""What a study shows, against numbers made by hand."""

import json
import math

import pytest
from scipy import stats
from study_rows import ABOUT, EXACT, NONE, ROW, RUNS, cells, run

from metapl.registry.errors import InputError
from metapl.studies import folder, results, specification, tables


def test_rows():
    none, exact = results.rows(ABOUT, RUNS)
    assert (none.arm, none.network, none.seeds, none.values, none.diverged) == (
        "none",
        "ema",
        (0, 1, 2, 3),
        (*NONE,),
        0,
    )
    assert none.difference is None
    assert (exact.arm, exact.values, exact.condition) == ("exact", (*EXACT,), {})
    assert (none.mean, exact.mean) == (0.625, 0.71875)
    assert none.deviation == pytest.approx(math.sqrt((2 * 0.125**2) / 3))
    assert none.interval == pytest.approx(3.182446305 * none.deviation / 2)
    found, truth = exact.difference, stats.ttest_rel(EXACT, NONE)
    low, high = truth.confidence_interval()
    assert (found.mean, found.wins, found.losses) == (0.09375, 3, 0)
    assert (found.sign_p, found.t_p) == pytest.approx((0.25, truth.pvalue))
    assert (found.mean - found.interval, found.mean + found.interval) == pytest.approx((low, high))


def test_arms_come_as_the_study_has_them_and_the_order_of_runs_is_nothing():
    late = [run("late", seed, 0.5) for seed in (3, 0)]
    table = results.rows(ABOUT, [*late, *reversed(RUNS)])
    assert [row.arm for row in table] == ["none", "exact", "late"]
    assert table[1].difference == results.rows(ABOUT, RUNS)[1].difference
    assert table[2].difference.mean == pytest.approx(-0.0625)
    assert dict(zip(table[2].seeds, table[2].values, strict=True)) == {3: 0.5, 0: 0.5}


def test_differences_are_of_common_seeds_alone():
    some = [one for one in RUNS if (one["arm"], one["seed"]) not in {("none", 0), ("exact", 3)}]
    none, exact = results.rows(ABOUT, some)
    assert (none.seeds, exact.seeds) == ((1, 2, 3), (0, 1, 2))
    assert exact.mean == pytest.approx(sum(EXACT[:3]) / 3)
    assert (exact.difference.mean, exact.difference.wins, exact.difference.losses) == (0.0625, 1, 0)
    none, exact = results.rows(ABOUT, [RUNS[0], RUNS[5]])
    assert exact.difference is None
    assert [row.arm for row in results.rows(ABOUT, RUNS[4:])] == ["exact"]
    assert results.rows(ABOUT, RUNS[4:])[0].difference is None
    assert results.rows(ABOUT, []) == []


def test_a_single_seed_has_no_deviation():
    none, exact = results.rows(ABOUT, [RUNS[0], RUNS[4]])
    assert (none.mean, none.deviation, exact.difference.mean) == (0.5, 0.0, 0.125)
    assert math.isnan(none.interval)
    assert math.isnan(exact.difference.interval)


def test_against_another_arm():
    about = ABOUT._replace(against="exact")
    none, exact = results.rows(about, RUNS)
    assert exact.difference is None
    assert (none.difference.mean, none.difference.wins, none.difference.losses) == (-0.09375, 0, 3)


def test_settings_are_apart():
    about = specification.build({"arms": {"none": {"grad": "none"}, "exact": {}}, "over": {"labels": [10, 40]}}, "here")
    few = [run(arm, 0, top1, {"labels": 10}) for arm, top1 in (("none", 0.5), ("exact", 0.75))]
    many = [run(arm, 0, top1, {"labels": 40}) for arm, top1 in (("none", 0.875), ("exact", 0.75))]
    table = results.rows(about, [*many, *few])
    assert [(row.condition["labels"], row.arm, row.mean) for row in table] == [
        (10, "none", 0.5),
        (10, "exact", 0.75),
        (40, "none", 0.875),
        (40, "exact", 0.75),
    ]
    assert [row.difference.mean for row in table if row.difference] == [0.25, -0.125]
    text = tables.markdown(about, [*many, *few])
    assert [line for line in text.splitlines() if line.startswith("**")] == ["**labels=10**", "**labels=40**"]
    assert text.index("labels=10") < text.index("50.00") < text.index("labels=40") < text.index("87.50")


@pytest.mark.parametrize(
    ("network", "judged", "top1"),
    [("auto", "finetuned", 0.75), ("ema", "ema", 0.5), ("teacher", "teacher", 0.25), ("student", "student", 0.375)],
)
def test_the_network_that_is_judged(network, judged, top1):
    one = run("exact", 0, 0.5, teacher=0.25, student=0.375, finetuned=0.75)
    (row,) = results.rows(ABOUT, [one], network=network)
    assert (row.network, row.mean) == (judged, top1)


@pytest.mark.parametrize("best", ["uda", "pseudo-labels", "supervised"])
def test_a_run_without_the_network_is_judged_by_its_best(best):
    baseline = run("exact", 0, 0.5, network=best, supervised=0.5)
    row = results.rows(ABOUT, [run("none", 0, 0.25, student=0.75), baseline], network="student")[1]
    assert (row.network, row.mean, row.difference.mean) == (best, 0.5, -0.25)


def test_other_metrics_and_the_validation_part():
    assert [row.mean for row in results.rows(ABOUT, RUNS, part="validation")] == [0.375, 0.46875]
    assert [row.mean for row in results.rows(ABOUT, RUNS, metric="nll")] == [1.25, 1.25]


def test_runs_that_diverged_are_counted_with_what_they_predict():
    wild = [run("exact", 0, 0.125, finite=False), *RUNS[5:]]
    assert [row.diverged for row in results.rows(ABOUT, [*RUNS[:4], *wild])] == [0, 1]
    assert results.rows(ABOUT, wild)[0].mean == pytest.approx((0.125 + sum(EXACT[1:])) / 4)


def test_what_diverged_has_no_likelihood():
    """And is left out of its mean, and of the difference; it is still counted as diverged."""
    wild = run("exact", 0, 0.125, finite=False)
    wild["test"]["ema"]["nll"] = None
    none, exact = results.rows(ABOUT, [*RUNS[:4], wild, *RUNS[5:]], metric="nll")
    assert (none.seeds, exact.seeds, exact.diverged) == ((0, 1, 2, 3), (1, 2, 3), 1)
    assert (none.mean, exact.mean, exact.difference.mean) == (1.25, 1.25, 0.0)


def test_a_study_without_a_validation_part():
    with pytest.raises(InputError, match="validation"):
        results.rows(ABOUT, [{**RUNS[0], "validation": {}}], part="validation")


def test_the_table_in_the_docs():
    """The differences 12.5, 0, 12.5, 12.5 have the mean 9.375 and the deviation 6.25."""
    (head, rule, none, exact), _ = cells(tables.markdown(ABOUT, RUNS))
    assert head == ["arm", "top-1 %", "sd", "− none", "better on", "sign p", "t p"]
    assert rule == ["---"] * 7
    assert none == ["none", "62.50", "10.21", "", "", "", ""]
    assert exact == ["exact", "71.88", "11.97", "+9.38 ± 9.95", "3 of 3", "0.25", "0.058"]


def test_a_loss_has_a_true_minus():
    about = ABOUT._replace(against="exact")
    assert cells(tables.markdown(about, RUNS))[0][2][3:5] == ["−9.38 ± 9.95", "0 of 3"]


@pytest.mark.parametrize(("reach", "counts"), [(0.625, ["3 of 4", "4 of 4"]), (0.75, ["1 of 4", "2 of 4"])])
def test_runs_that_reach_an_accuracy_are_counted(reach, counts):
    about = ABOUT._replace(reach=reach)
    (head, _, *rows), _ = cells(tables.markdown(about, RUNS))
    assert head[3] == f"≥ {100 * reach:g} %"
    assert [row[3] for row in rows] == counts
    shown = tables.arms(about, RUNS).without(*tables.BEHIND)
    assert shown.titles == head
    assert shown.cells == rows


def test_pairs_are_compared_as_if_each_were_a_study_of_its_own():
    about = ABOUT._replace(pairs=(("none", "exact"), ("late", "exact"), ("late", "none")))
    late = [run("late", seed, value) for seed, value in ((0, 0.5), (1, 0.625))]
    (backwards, of_exact, of_none) = results.pairs(about, [*RUNS, *late])
    assert [(pair.arm, pair.minus) for pair in (backwards, of_exact, of_none)] == [*about.pairs]
    turned = results.rows(ABOUT._replace(against="exact"), RUNS)
    assert backwards.difference == next(row.difference for row in turned if row.arm == "none")
    assert (of_exact.difference.mean, of_exact.difference.losses) == (-0.0625, 1)  # on the seeds 0 and 1
    assert (of_none.difference.mean, of_none.difference.wins) == (0.0, 0)
    assert len(results.pairs(about, RUNS)) == 1


def test_pairs_of_every_setting_are_in_the_table():
    arms = {"none": {"grad": "none"}, "exact": {}}
    about = specification.build({"over": {"labels": [40, 10]}, "arms": arms, "pairs": [["none", "exact"]]}, "here")
    runs = [
        run(arm, seed, value + labels / 1000, {"labels": labels})
        for labels in (10, 40)
        for arm, values in (("none", NONE), ("exact", EXACT))
        for seed, value in enumerate(values)
    ]
    runs[0]["test"]["ema"]["top1"] += 0.125  # none, 10 labels, seed 0
    assert [pair.condition for pair in results.pairs(about, runs)] == [{"labels": 40}, {"labels": 10}]
    _, (head, _, forty), _, _, (_, _, ten), _ = cells(tables.markdown(about, runs))
    assert head == ["arm", "minus", "difference", "better on", "sign p", "t p"]
    assert forty == ["none", "exact", "−9.38 ± 9.95", "0 of 3", "0.25", "0.058"]
    assert ten[:4] == ["none", "exact", "−6.25 ± 11.48", "0 of 2"]  # a tie on two seeds


def test_teachers_and_students():
    runs = [run("none", seed, 0.5, teacher=0.5 + 0.125 * seed) for seed in range(3)]
    for seed, one in enumerate(runs):
        one["log"] = [
            {"step": 5 * look, "pseudo_labels": {"accuracy": (look + seed) / 16}} for look in range(1, 11)
        ] + [{"step": 7, "pseudo_labels": None}]
    alone = [run("late", seed, 0.75, network="supervised") for seed in range(3)]
    _, (head, _, *rows), _ = cells(tables.markdown(ABOUT, [*runs, *alone]))
    assert head == ["arm", "teacher", "student", "student − teacher", "pseudo labels right"]
    assert rows == [["none", "62.50", "50.00", "−12.50 ± 31.05", "18.8 % after 10, 37.5 % after 25, 68.8 % after 50"]]
    for one in runs[:2]:
        one["log"][1]["pseudo_labels"]["accuracy"] = None  # diverged
    for one in runs:
        one["log"][9]["pseudo_labels"]["accuracy"] = None
    (*_, found), *_ = cells(tables.markdown(ABOUT, runs))[1][2:]
    assert found == "25.0 % after 10, 37.5 % after 25, – after 50"
    for one in runs:
        one["log"] = one["log"][-1:]
    assert cells(tables.markdown(ABOUT, runs))[1][2][4] == "–"


def test_every_network_has_a_row_of_its_own():
    """The ECE in per cent, the likelihood of what diverged left out, a bar in a name made harmless."""
    about = specification.build({"arms": {"a|b": {}, "wild": {"lr": 0.2}}}, "here")
    runs = [run("a|b", seed, 0.5, teacher=0.25 * seed) for seed in range(3)] + [run("wild", 0, 0.125, finite=False)]
    runs[1]["test"]["ema"] = {**ROW, "nll": None, "ece": 0.25}
    runs[3]["test"]["ema"]["nll"] = None
    _, _, (head, _, *rows) = cells(tables.markdown(about, runs))
    assert head == ["arm", "network", "top-1 %", "NLL", "ECE %"]
    assert rows == [
        ["a/b", "ema", "50.00 ± 0.00", "1.250 ± 0.000", "16.67 ± 7.22"],
        ["a/b", "teacher", "25.00 ± 25.00", "1.250 ± 0.000", "12.50 ± 0.00"],
        ["wild", "ema", "12.50 ± 0.00", "–", "12.50 ± 0.00"],
    ]


def test_lines():
    third = run("late", 2, 1 / 3, {"labels": 10}, finite=False)
    third["test"]["ema"]["nll"] = None
    lines = folder.lines([*RUNS, third]).splitlines()
    found = [json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} is not JSON")) for line in lines]
    assert len(found) == 9
    assert all(list(one) == ["setting", "arm", "seed", "finite", "validation", "test"] for one in found)
    assert found[4] == {
        "setting": {},
        "arm": "exact",
        "seed": 0,
        "finite": True,
        "validation": {"ema": {"top1": 0.375, "nll": 1.25, "ece": 0.125}},
        "test": {"ema": {"top1": 0.625, "nll": 1.25, "ece": 0.125}},
    }
    assert found[8]["test"]["ema"] == {"top1": 0.333333, "nll": None, "ece": 0.125}
    assert (found[8]["setting"], found[8]["finite"]) == ({"labels": 10}, False)
