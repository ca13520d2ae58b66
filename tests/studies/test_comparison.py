"""All estimators at one point of training."""

import math

import pytest
import torch
from points import build, loop

from metapl import estimators
from metapl.core import tree
from metapl.estimators import AVAILABLE, ESTIMATORS
from metapl.evaluation import cost, quality
from metapl.registry.errors import InputError
from metapl.studies import comparison, snapshot

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def point():
    return build()


PLAN = comparison.Plan(draws=40, cosine=0.9, rounds=2)


def changed(factor):
    """`exact`, its feedback times a factor."""
    inner = estimators.exact()

    def estimate(instance, memory):
        feedback, memory = inner.estimate(instance, memory)
        return feedback._replace(grads=tuple(factor * one for one in feedback.grads)), memory

    return inner._replace(estimate=estimate)


def rows_of(report):
    return {row.name: row for row in report.rows}


@pytest.fixture(scope="module")
def report(point):
    def refuse(instance, memory):
        raise ValueError("not this optimiser")

    built, _ = comparison.choose(["unroll", "score", "taylor:sign=paper", "taylor:sign=released", "first-order"])
    built |= {"longer": changed(1.02), "reversed": changed(-1.0)}
    built["strict"] = estimators.exact()._replace(estimate=refuse)
    return comparison.compare(point, built, PLAN, lambda text: None)


def test_exact_is_exact(report):
    for name in ("exact", "unroll"):
        row = rows_of(report)[name]
        assert row.labels == "soft"
        assert [row.accuracy.cosine, row.accuracy.projection] == [pytest.approx(1.0, abs=1e-9)] * 2
        assert row.accuracy.bias < 1e-9
        assert [row.accuracy.variance, row.accuracy.draws_needed] == [0.0, 1.0]
    assert rows_of(report)["exact"].accuracy.bias == 0.0


def test_a_factor_and_a_sign_are_seen(report):
    rows = rows_of(report)
    assert rows["longer"].accuracy.norm_ratio == pytest.approx(1.02, abs=1e-12)
    assert rows["longer"].accuracy.bias == pytest.approx(0.02, abs=1e-12)
    assert rows["longer"].accuracy.cosine == pytest.approx(1.0)
    assert rows["reversed"].accuracy.cosine == pytest.approx(-1.0)
    paper, released = rows["taylor:sign=paper"].accuracy, rows["taylor:sign=released"].accuracy
    assert paper.projection == pytest.approx(-released.projection)
    assert paper.cosine_one == pytest.approx(-released.cosine_one)
    assert released.projection < -2 * released.projection_error
    assert released.draws_needed == math.inf


def test_nothing_is_the_base(report):
    nothing = rows_of(report)["none"]
    assert [row.name for row in report.rows][:2] == ["none", "exact"]
    assert (nothing.accuracy.projection, nothing.accuracy.bias) == (0.0, 1.0)
    assert [nothing.cost.flops_ratio, nothing.cost.time_low, nothing.cost.time_ratio] == [1.0] * 3
    for row in report.rows:
        assert row.cost.flops_ratio == row.cost.flops / nothing.cost.flops >= 1.0
        assert row.cost.peak_memory_bytes > 0
        assert row.cost.time_low <= row.cost.time_ratio <= row.cost.time_high


def test_ratios_of_times_are_taken_round_by_round(monkeypatch):
    seconds = {"none": [1.0, 2.0, 4.0], "exact": [3.0, 2.0, 16.0]}
    monkeypatch.setattr(cost, "interleave", lambda *given: seconds)
    costs = comparison._costs(dict.fromkeys(seconds, lambda: torch.ones(3, 3) @ torch.ones(3, 3)), 3, CPU)["exact"]
    assert (costs.milliseconds, costs.time_low, costs.time_ratio, costs.time_high) == (3000.0, 2.0, 3.0, 3.5)
    row = comparison.Row("exact", "exact", "soft", found_with(draws_needed=7.0), costs._replace(flops_ratio=2.0), {})
    assert comparison.reach(row) == {"flops_to_reach": 14.0, "time_to_reach": 21.0, "milliseconds_to_reach": 21_000.0}


def found_with(**values):
    truth = torch.ones(12, dtype=torch.float64)
    return quality.accuracy(truth[None], truth[None], 0.9)._replace(**values)


def test_flops_of_the_student_step(report):
    """A perceptron of 64, 8 and 10 on 16 examples, forward and backward, and forward on the 10 of the exam."""
    forward = 2 * (64 * 8 + 8 * 10)
    backward = forward + 2 * 8 * 10  # to the weights of both layers, and to the hidden units
    assert rows_of(report)["none"].cost.flops == 16 * (forward + backward) + 10 * forward


def test_sampled_labels_have_a_truth_of_their_own(report, point):
    score = rows_of(report)["score"]
    assert score.labels == "sampled"
    truth = loop(estimators.exact(), snapshot.assign(point, "sampled", torch.float64), 40)
    draws = loop(estimators.score(), snapshot.assign(point, "sampled", torch.float64), 40)
    expected = quality.accuracy(draws, truth, 0.9)
    assert score.accuracy == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert 0.9 < report.truths["sampled"].cosine <= 1.0
    assert report.truths["soft"].cosine == pytest.approx(1.0)
    assert report.truths["sampled"].draws == 40


def test_what_does_not_take_the_problem_is_left_out(report):
    assert report.left_out == {"strict": "not this optimiser"}
    assert "strict" not in rows_of(report)


def test_several_steps():
    built, _ = comparison.choose(["first-order", "evograd", "taylor", "truncated", "exact:fraction=0.5"])
    found = comparison.compare(build(unroll=2, batch=8, steps=1), built, PLAN._replace(draws=10), lambda text: None)
    single = {name for name, one in built.items() if not one.several}
    assert "exact:fraction=0.5" in single
    assert single == set(found.left_out)
    assert all("one step at a time" in found.left_out[name] for name in single)
    assert rows_of(found)["exact"].accuracy.cosine == pytest.approx(1.0)
    assert found.numbers == 160


def test_a_kind_of_labels_for_all():
    built, _ = comparison.choose(["score", "gumbel"])
    found = comparison.compare(build(pseudo_labels="argmax", steps=1), built, PLAN, lambda text: None)
    assert {row.labels for row in found.rows} == {"argmax"}
    assert "sampled labels, not argmax" in found.left_out["gumbel"]
    assert rows_of(found)["score"].accuracy.draws == 1


def test_exact_feedback_that_is_not_finite(point):
    still = point.state._replace(student=tree.scale(math.nan, point.state.student))
    with pytest.raises(InputError, match="zero or not finite"):
        comparison.compare(point._replace(state=still), comparison.choose(["none"])[0], PLAN, lambda text: None)


def test_what_the_truth_needs_is_never_left_out(point):
    def refuse(instance, memory):
        raise ValueError("no")

    built = {"none": estimators.none(), "exact": estimators.exact()._replace(estimate=refuse)}
    with pytest.raises(InputError, match="exact does not take this problem"):
        comparison.compare(point, built, PLAN, lambda text: None)


def test_the_default_is_every_estimator():
    built, left_out = comparison.choose([])
    assert set(built) == {*AVAILABLE, *comparison.VARIANTS} - set(left_out)
    assert [*built][:2] == ["none", "exact"]


def test_a_broken_package_is_left_out_unless_it_is_asked_for(monkeypatch):
    def broken():
        raise InputError("repair it")

    monkeypatch.setattr(comparison, "AVAILABLE", {**ESTIMATORS, "plugin": broken})
    assert comparison.choose([])[1] == {"plugin": "repair it"}
    with pytest.raises(InputError, match="repair it"):
        comparison.choose(["plugin"])
