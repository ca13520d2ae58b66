"""`metapl compare`: the statistics against brute force and closed forms, the measuring, the command."""

import contextlib
import io
import itertools
import json
import math
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from matplotlib import image

from metapl import accuracy, compare, estimators, gradients, measure, plots, rng, spec, stage, tree
from metapl.cli.main import main
from metapl.config import TrainConfig
from metapl.errors import InputError
from metapl.estimators import AVAILABLE, ESTIMATORS
from metapl.labels import LABELS
from metapl.mpl import meta_pseudo_labels
from metapl.setting import prepare, recipe

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

CPU = torch.device("cpu")
TINY = {"model": "mlp:width=8,depth=1", "batch": 16, "validation": 0, "device": "cpu"}


def normal(seed, *shape):
    return rng.normal(rng.key(seed), shape, torch.float64)


# ---------------------------------------------------------------- statistics

TRUTH = normal(0, 12)
ACROSS = normal(1, 12) - TRUTH * (normal(1, 12) @ TRUTH) / (TRUTH @ TRUTH)
MEAN = 1.3 * TRUTH + 0.2 * ACROSS
SPREAD = torch.linspace(0.5, 4.0, 12).double()


def gaussian(seed, *shape):
    """Draws of an estimator whose mean and covariance are known."""
    return MEAN + SPREAD * normal(seed, *shape, 12)


KNOWN = {
    "projection": (MEAN @ TRUTH / (TRUTH @ TRUTH)).item(),
    "bias_square": ((MEAN - TRUTH).square().sum() / (TRUTH @ TRUTH)).item(),
    "cosine": (MEAN @ TRUTH / (MEAN.norm() * TRUTH.norm())).item(),
    "variance": (SPREAD.square().sum() / (TRUTH @ TRUTH)).item(),
}


def found(draws, truth=TRUTH, cosine=0.9):
    return accuracy.accuracy(draws, truth if truth.ndim == 2 else truth[None], cosine)


def test_a_known_gaussian_is_covered_at_the_stated_errors():
    """Over many samples the estimates centre on what is known, and lie within two standard errors as often as they
    should."""
    many = [found(one) for one in gaussian(2, 300, 60)]
    for name in ("projection", "bias_square"):
        off = torch.tensor([getattr(one, name) - KNOWN[name] for one in many]).double()
        errors = torch.tensor([getattr(one, f"{name}_error") for one in many]).double()
        assert abs(off.mean()) < 3.5 * off.std() / math.sqrt(len(many)), name
        assert (off.abs() < 2 * errors).double().mean() > 0.92, name
        assert 0.85 < errors.mean() / off.std() < 1.45, name  # the jackknife errs on the careful side
    spread = torch.tensor([one.variance for one in many]).double()
    assert abs(spread.mean() - KNOWN["variance"]) < 3.5 * spread.std() / math.sqrt(len(many))


def test_many_draws_of_a_known_gaussian():
    one = found(gaussian(3, 40_000))
    for name, value in KNOWN.items():
        assert getattr(one, name) == pytest.approx(value, rel=0.05), name
    assert abs(one.cosine - KNOWN["cosine"]) < 4 * one.cosine_error < 0.02
    assert one.bias == pytest.approx(math.sqrt(KNOWN["bias_square"]), rel=0.05)
    assert one.norm_ratio == pytest.approx((MEAN.norm() / TRUTH.norm()).item(), rel=0.05)


def test_noise_is_taken_out():
    """The bare |mean − t| of an unbiased estimator is all noise; what is reported is not."""
    draws = TRUTH + 20 * normal(4, 100, 12)
    bare = ((draws.mean(0) - TRUTH).norm() / TRUTH.norm()).item()
    many = torch.tensor([found(TRUTH + 20 * normal(seed, 100, 12)).bias_square for seed in range(100, 300)]).double()
    assert bare**2 > 1
    assert abs(many.mean()) < 3.5 * many.std() / math.sqrt(len(many)) < 0.6


def test_leaving_out_a_draw_is_leaving_it_out():
    x, y = normal(5, 7, 4), normal(6, 7, 4)
    product, covariance = accuracy.moments(x, y)
    for index in range(7):
        kept = [other for other in range(7) if other != index]
        one, other = accuracy.moments(x[kept], y[kept])
        torch.testing.assert_close(product[1 + index], one[0])
        torch.testing.assert_close(covariance[1 + index], other[0])
    pairs = sum(x[i] @ y[j] for i in range(7) for j in range(7) if i != j) / 42
    torch.testing.assert_close(product[0], pairs)
    by_torch = sum(torch.cov(torch.stack([x[:, k], y[:, k]]))[0, 1] for k in range(4))
    torch.testing.assert_close(covariance[0], by_torch)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = normal(7, 20)
    left = torch.stack([values[[j for j in range(20) if j != i]].mean() for i in range(20)])
    jack = accuracy.jackknife(torch.cat([values.mean()[None], left]))
    assert jack == pytest.approx((values.std() / math.sqrt(20)).item())
    assert accuracy.jackknife(torch.tensor([3.0])) == 0.0


@pytest.mark.parametrize("target", [0.75, 0.85, 0.92])
def test_draws_needed_against_brute_force(target):
    """Averaging as many draws as the formula says gives the cosine that was asked for."""
    needed = found(gaussian(8, 40_000), cosine=target).draws_needed
    assert needed > 2

    def reached(count):
        means = gaussian(9, 4_000, int(count)).mean(1)
        return torch.nn.functional.cosine_similarity(means, TRUTH[None]).mean().item()

    assert reached(needed) == pytest.approx(target, abs=0.02)
    assert reached(2 * needed) > target + 0.01
    assert reached(needed // 2) < target - 0.01


def test_the_range_of_the_draws_needed():
    """It covers what is known about as often as one standard error does, and it is a range."""
    square = KNOWN["variance"] * KNOWN["cosine"] ** 2 / KNOWN["projection"] ** 2
    truth = square / ((KNOWN["cosine"] / 0.8) ** 2 - 1)
    many = [found(one, cosine=0.8) for one in gaussian(10, 300, 100)]
    assert 0.55 < sum(one.draws_low <= math.ceil(truth) <= one.draws_high for one in many) / 300 < 0.9
    assert all(one.draws_low <= one.draws_needed <= one.draws_high for one in many)


def test_a_bias_that_no_draws_overcome():
    one = found(gaussian(11, 40_000), cosine=0.999)
    assert KNOWN["cosine"] < 0.999
    assert [one.draws_needed, one.draws_high] == [math.inf] * 2


def test_what_is_exact():
    one = found(TRUTH[None])
    assert [one.cosine_one, one.cosine_mean, one.cosine] == [pytest.approx(1.0)] * 3
    assert [one.projection, one.norm_ratio, one.draws_needed] == [1.0, 1.0, 1.0]
    assert [one.bias, one.bias_error, one.variance, one.projection_error] == [0.0] * 4


def test_what_is_scaled_reversed_or_nothing():
    scaled, turned, nothing = found(1.02 * TRUTH[None]), found(-TRUTH[None]), found(0 * TRUTH[None])
    assert (scaled.projection, scaled.norm_ratio) == (pytest.approx(1.02), pytest.approx(1.02))
    assert (scaled.bias, scaled.cosine, scaled.draws_needed) == (pytest.approx(0.02), pytest.approx(1.0), 1.0)
    assert (turned.cosine, turned.cosine_one, turned.projection) == (pytest.approx(-1), pytest.approx(-1), -1.0)
    assert (turned.bias, turned.draws_needed) == (pytest.approx(2.0), math.inf)
    assert math.isnan(nothing.cosine)
    assert (nothing.projection, nothing.bias, nothing.draws_needed) == (0.0, 1.0, math.inf)


def test_a_noisy_estimate_with_its_sign_reversed_never_gets_there():
    one = found(-gaussian(12, 1_000))
    assert one.cosine < -0.9
    assert [one.draws_needed, one.draws_low, one.draws_high] == [math.inf] * 3


def test_a_truth_that_is_drawn_with_the_same_randomness():
    """What noise the two share is in neither the bias nor its error."""
    truths = TRUTH + normal(13, 50, 12)
    same = found(truths, truths)
    assert (same.bias, same.bias_error, same.projection, same.projection_error) == (0.0, 0.0, 1.0, pytest.approx(0))
    many = [found(1.1 * (TRUTH + one), TRUTH + one) for one in normal(14, 200, 50, 12)]
    off = torch.tensor([one.projection - 1.1 for one in many]).double()
    assert off.abs().max() < 1e-9
    squares = torch.tensor([one.bias_square for one in many]).double()
    assert squares.mean() == pytest.approx(0.01, rel=1e-6)


def test_the_curve():
    draws = gaussian(15, 3_000)
    one = found(draws)
    curve = compare.curve(draws, TRUTH[None], one)
    assert curve["draws"] == [1, 3, 10, 30, 100, 300, 1000, 3000]
    assert curve["predicted"] == pytest.approx(curve["measured"], abs=0.03)
    assert curve["measured"][0] == pytest.approx(one.cosine_one)
    assert curve["measured"][-1] == pytest.approx(one.cosine_mean)
    assert compare.curve(TRUTH[None], TRUTH[None], found(TRUTH[None])) == {}


# ---------------------------------------------------------------- cost


def test_flops_of_a_matrix_product_and_its_derivatives():
    a, b, v = torch.ones(8, 20), torch.ones(20, 30), torch.ones(20, 30)

    def fn(b):
        return (a @ b).tanh().sum()

    one = 2 * 8 * 20 * 30
    assert measure.flops(lambda: fn(b)) == one
    assert measure.flops(lambda: torch.func.jvp(fn, (b,), (v,))) >= 2 * one
    assert measure.flops(lambda: torch.func.vjp(fn, b)[1](torch.ones(()))) == 2 * one
    assert measure.flops(lambda: torch.vmap(fn)(torch.ones(5, 20, 30))) == 5 * one
    assert measure.flops(lambda: gradients.value_and_grad(lambda b: (fn(b), ()), b)) == 2 * one


def test_peak_memory():
    a, kilobyte = torch.zeros(256), 1024

    def temporary():
        (a + 1).sum()  # freed before the next line
        return a.reshape(16, 16).t() + 2

    assert measure.peak_memory(lambda: a + 1, CPU) == kilobyte
    assert measure.peak_memory(lambda: [a + 1, a + 2, a + 3], CPU) == 3 * kilobyte
    assert measure.peak_memory(lambda: (a + 1) * 2 * 3 * 4, CPU) == 2 * kilobyte
    assert measure.peak_memory(lambda: a.view(16, 16).t()[:3], CPU) == 0  # a view is no new memory
    assert measure.peak_memory(temporary, CPU) == kilobyte + 4
    assert measure.peak_memory(lambda: torch.func.grad(lambda x: x.exp().sum())(a), CPU) >= 2 * kilobyte


def test_peak_memory_sees_what_a_graph_keeps():
    w = torch.ones(256, requires_grad=True)

    def kept(depth):
        y = w
        for _ in range(depth):
            y = y.exp()
        return y.sum()

    found = [measure.peak_memory(lambda depth=depth: kept(depth), CPU) for depth in (4, 8)]
    assert found[1] - found[0] == 4 * 1024


def test_calls_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    times = measure.interleave(calls, 2, CPU)
    assert order == [*"abc"] * 3
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abc", 2)


def test_quartiles():
    assert measure.quartiles([5.0, 1.0, 2.0, 4.0, 3.0]) == (2.0, 3.0, 4.0)
    assert measure.quartiles([5.0]) == (5.0, 5.0, 5.0)


# ---------------------------------------------------------------- a point of training


def build(**options):
    steps = options.pop("steps", 2)
    return stage.trained(prepare(TrainConfig(**{**TINY, **options})), steps, lambda progress: None)


@pytest.fixture(scope="module")
def point():
    return build()


def test_the_assignment_is_that_of_the_step_that_comes_next(point):
    """Losses of the student and of the exam, as the training step itself reports them."""
    teacher, student = stage._players(point.setting)
    augment, numbers = point.setting.data.augment, recipe(point.setting.config)
    method = meta_pseudo_labels(teacher, student, estimators.exact(), LABELS["soft"], augment, numbers)
    batch = stage.experiment.batches(point.setting)(point.step)
    key = rng.fold_in(rng.split(point.setting.keys.mpl, 2)[1], point.step)
    _, told = method.step(point.state, batch, key)
    for dtype, tolerance in ((torch.float32, 0.0), (torch.float64, 1e-4)):
        *given, label_key = stage.assign(point, "soft", dtype)
        feedback, _ = estimators.exact().estimate(*given, (), label_key)
        assert feedback.lessons[0].dtype == feedback.outer.dtype == dtype
        assert feedback.outer.item() == pytest.approx(told["exam"].item(), rel=tolerance)
        assert feedback.inner.item() == pytest.approx(told["student"].item(), rel=tolerance)
        size = tree.norm(list(feedback.lessons)) / feedback.scale
        assert size.item() == pytest.approx(told["feedback"].item(), rel=max(tolerance, 1e-6))


def test_the_learning_rates_stay_what_they_are():
    """A cosine would be at zero at the end of a run, and every feedback with it."""
    setting = prepare(TrainConfig(**TINY, optimizer="sgd", clip=0.0, lr=0.3, teacher_lr=0.2, steps=3))
    weight = {"w": torch.ones(3, dtype=torch.float64)}
    for player, rate in zip(stage._players(setting), (0.2, 0.3), strict=True):
        state = player.optimizer.init(weight)
        for _ in range(5):
            change, state = player.optimizer.update(weight, state, weight)
            torch.testing.assert_close(change["w"], torch.full((3,), -rate).double())


def test_fresh_weights_and_later_ones_differ(point):
    fresh = build(steps=0)
    assert fresh.step == 0
    assert not torch.equal(*(one.state.student.params["1.weight"] for one in (fresh, point)))


# ---------------------------------------------------------------- draws


def loop(estimator, assignment, count):
    *given, key = assignment
    memory, drawn = estimator.init(), []
    for index in range(count):
        feedback, memory = estimator.estimate(*given, memory, rng.fold_in(key, index))
        drawn.append(torch.cat([one.flatten() for one in feedback.lessons]))
    return torch.stack(drawn)


RANDOM = ["first-order", "first-order:baseline=0,reduction=sum", "score", "taylor", "gumbel", "exact:fraction=0.5"]


@pytest.mark.parametrize("name", [*RANDOM, "evolution:pairs=1", "forward:directions=1", "evograd:children=2"])
def test_vectorised_draws_are_those_of_a_loop(point, name):
    estimator = spec.build(name, AVAILABLE, "estimator")
    given = stage.assign(point, estimator.labels[0], torch.float64)
    expected = loop(estimator, given, 7)
    for together in (1, 3):
        drawn = stage.draw(estimator, given, 7, together, drawn=estimator.labels[0] == "sampled")
        torch.testing.assert_close(drawn, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", ["score", "first-order:baseline=0"])
def test_draws_without_memory_are_vectorised(point, name, monkeypatch):
    """`first-order:baseline=0` has a memory that does not move."""
    vectorised = mock.Mock(side_effect=torch.vmap)
    monkeypatch.setattr(torch, "vmap", vectorised)
    given = stage.assign(point, "sampled", torch.float64)
    stage.draw(spec.build(name, AVAILABLE, "estimator"), given, 5, 5, drawn=True)
    assert vectorised.called


def test_memory_goes_through_the_draws_in_order(point):
    given = stage.assign(point, "sampled", torch.float64)
    drawn = stage.draw(estimators.first_order(), given, 6, 6, drawn=True)
    torch.testing.assert_close(drawn, loop(estimators.first_order(), given, 6), rtol=1e-12, atol=0)
    assert not torch.allclose(drawn, loop(estimators.first_order(baseline=0.0), given, 6))


@pytest.mark.parametrize("name", ["exact", "unroll", "difference", "none"])
def test_without_randomness_one_draw_is_enough(point, name):
    given = stage.assign(point, "soft", torch.float64)
    assert stage.draw(ESTIMATORS[name](), given, 9, 4, drawn=False).shape == (1, 160)


def _peeping(point):
    """An estimator that looks at its data, which `torch.vmap` refuses."""
    inner = estimators.score()

    def estimate(*given):
        feedback, memory = inner.estimate(*given)
        float(feedback.outer)
        return feedback, memory

    return inner._replace(estimate=estimate)


def _deceptive(point):
    """An estimator that is another one under a transform."""
    inner = estimators.score()

    def estimate(*given):
        feedback, memory = inner.estimate(*given)
        factor = 2.0 if gradients.transforming() else 1.0
        return feedback._replace(lessons=tuple(factor * one for one in feedback.lessons)), memory

    return inner._replace(estimate=estimate)


@pytest.mark.parametrize("make", [_peeping, _deceptive])
def test_where_vectorising_fails_there_is_a_loop(point, make):
    given = stage.assign(point, "sampled", torch.float64)
    drawn = stage.draw(make(point), given, 5, 5, drawn=True)
    torch.testing.assert_close(drawn, loop(estimators.score(), given, 5), rtol=1e-12, atol=0)


def test_batch_normalisation_falls_back_to_the_loop():
    normed = build(model="convnet:width=4,depth=1,norm=batch", steps=1)
    given = stage.assign(normed, "sampled", torch.float64)
    drawn = stage.draw(estimators.score(), given, 4, 4, drawn=True)
    torch.testing.assert_close(drawn, loop(estimators.score(), given, 4), rtol=1e-9, atol=1e-14)


# ---------------------------------------------------------------- all of it

PLAN = compare.Plan(draws=40, cosine=0.9, rounds=2)


def changed(factor):
    """`exact`, its feedback times a factor."""
    inner = estimators.exact()

    def estimate(*given):
        feedback, memory = inner.estimate(*given)
        return feedback._replace(lessons=tuple(factor * one for one in feedback.lessons)), memory

    return inner._replace(estimate=estimate)


def rows_of(report):
    return {row.name: row for row in report.rows}


@pytest.fixture(scope="module")
def report(point):
    def refuse(*given):
        raise ValueError("not this optimiser")

    built, _ = compare.choose(["unroll", "score", "taylor:sign=paper", "taylor:sign=released", "first-order"])
    built |= {"longer": changed(1.02), "reversed": changed(-1.0)}
    built["strict"] = estimators.exact()._replace(estimate=refuse)
    return compare.compare(point, built, PLAN, lambda text: None)


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
    monkeypatch.setattr(measure, "interleave", lambda *given: seconds)
    costs = compare._costs(dict.fromkeys(seconds, lambda: torch.ones(3, 3) @ torch.ones(3, 3)), 3, CPU)["exact"]
    assert (costs.milliseconds, costs.time_low, costs.time_ratio, costs.time_high) == (3000.0, 2.0, 3.0, 3.5)
    row = compare.Row("exact", "exact", "soft", found_with(draws_needed=7.0), costs._replace(flops_ratio=2.0), {})
    assert compare.reach(row) == {"flops_to_reach": 14.0, "time_to_reach": 21.0, "milliseconds_to_reach": 21_000.0}


def found_with(**values):
    return found(TRUTH[None])._replace(**values)


def test_flops_of_the_student_step(report):
    """A perceptron of 64, 8 and 10 on 16 examples, forward and backward, and forward on the 10 of the exam."""
    forward = 2 * (64 * 8 + 8 * 10)
    backward = forward + 2 * 8 * 10  # to the weights of both layers, and to the hidden units
    assert rows_of(report)["none"].cost.flops == 16 * (forward + backward) + 10 * forward


def test_sampled_labels_have_a_truth_of_their_own(report, point):
    score = rows_of(report)["score"]
    assert score.labels == "sampled"
    truth = loop(estimators.exact(), stage.assign(point, "sampled", torch.float64), 40)
    draws = loop(estimators.score(), stage.assign(point, "sampled", torch.float64), 40)
    expected = accuracy.accuracy(draws, truth, 0.9)
    assert score.accuracy == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert 0.9 < report.truths["sampled"].cosine <= 1.0
    assert report.truths["soft"].cosine == pytest.approx(1.0)
    assert report.truths["sampled"].draws == 40


def test_what_does_not_take_the_problem_is_left_out(report):
    assert report.left_out == {"strict": "not this optimiser"}
    assert "strict" not in rows_of(report)


def test_several_steps():
    built, _ = compare.choose(["first-order", "evograd", "taylor", "truncated", "exact:fraction=0.5"])
    found = compare.compare(build(unroll=2, batch=8, steps=1), built, PLAN._replace(draws=10), lambda text: None)
    single = {name for name, one in built.items() if not one.several}
    assert "exact:fraction=0.5" in single
    assert single == set(found.left_out)
    assert all("one step at a time" in found.left_out[name] for name in single)
    assert rows_of(found)["exact"].accuracy.cosine == pytest.approx(1.0)
    assert found.numbers == 160


def test_a_kind_of_labels_for_all():
    built, _ = compare.choose(["score", "gumbel"])
    found = compare.compare(build(pseudo_labels="argmax", steps=1), built, PLAN, lambda text: None)
    assert {row.labels for row in found.rows} == {"argmax"}
    assert "sampled labels, not argmax" in found.left_out["gumbel"]
    assert rows_of(found)["score"].accuracy.draws == 1


def test_exact_feedback_that_is_not_finite(point):
    still = point.state._replace(student=tree.scale(math.nan, point.state.student))
    with pytest.raises(InputError, match="zero or not finite"):
        compare.compare(point._replace(state=still), compare.choose(["none"])[0], PLAN, lambda text: None)


def test_what_the_truth_needs_is_never_left_out(point):
    def refuse(*given):
        raise ValueError("no")

    built = {"none": estimators.none(), "exact": estimators.exact()._replace(estimate=refuse)}
    with pytest.raises(InputError, match="exact does not take this problem"):
        compare.compare(point, built, PLAN, lambda text: None)


def test_the_default_is_every_estimator():
    built, left_out = compare.choose([])
    assert set(built) == {*AVAILABLE, *compare.VARIANTS} - set(left_out)
    assert [*built][:2] == ["none", "exact"]


def test_a_broken_package_is_left_out_unless_it_is_asked_for(monkeypatch):
    def broken():
        raise InputError("repair it")

    monkeypatch.setattr(compare, "AVAILABLE", {**ESTIMATORS, "plugin": broken})
    assert compare.choose([])[1] == {"plugin": "repair it"}
    with pytest.raises(InputError, match="repair it"):
        compare.choose(["plugin"])


# ---------------------------------------------------------------- the command

SMALL = ("--model", "mlp:width=8,depth=1", "--batch", "16", "--device", "cpu", "--draws", "10", "--rounds", "2")
FEW = (*SMALL, "--steps", "1", "--grad", "score", "--grad", "taylor:sign=released")


def invoke(*args):
    """`metapl compare ARGS` in this process. Any other exception than the exit is a traceback, and fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["metapl", *map(str, args)]),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    return SimpleNamespace(code=stopped.value.code, out=out.getvalue(), err=err.getvalue())


COLUMNS = ("labels", "cosine", "of one draw", "projection", "bias", "variance", "FLOPs", "time", "memory")
TO_REACH = ("draws to 0.8", "FLOPs to 0.8", "time to 0.8")
FIELDS = {
    *("name", "claim", "labels", "curve", "flops_to_reach", "time_to_reach", "milliseconds_to_reach"),
    *(*accuracy.Accuracy._fields, *compare.Cost._fields),
}


def test_the_command(tmp_path):
    file, picture = tmp_path / "deep" / "numbers.json", tmp_path / "picture.png"
    outcome = invoke("compare", *FEW, "--cosine", "0.8", "--json", file, "--plot", picture)
    assert (outcome.code, outcome.err) == (0, "")
    assert all(column in outcome.out for column in (*COLUMNS, *TO_REACH))
    record = json.loads(file.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert [row["name"] for row in record["rows"]] == ["none", "exact", "score", "taylor:sign=released"]
    assert all(outcome.out.count(f"│ {row['name']} ") == 2 for row in record["rows"])
    assert all(set(row) == FIELDS for row in record["rows"])
    assert (record["steps"], record["draws"], record["cosine"], record["numbers"]) == (1, 10, 0.8, 160)
    assert record["config"]["batch"] == 16
    assert record["environment"]["torch"] == torch.__version__
    assert record["rows"][3]["draws_needed"] is None
    assert record["rows"][1]["bias"] == 0.0
    assert image.imread(picture).std() > 0.01
    assert {path.name for path in tmp_path.iterdir()} == {"deep", "picture.png"}


def test_names_in_the_picture_do_not_touch():
    for wanted in ([0.99, 1.0, 0.98, 0.3], [1.0] * 12, [0.0] * 5, []):
        for ordered in (False, True):
            heights = plots._apart(wanted, 0.0, 1.03, ordered=ordered)
            gaps = [a - b for a, b in itertools.pairwise(heights if ordered else sorted(heights, reverse=True))]
            assert all(gap > 0.047 for gap in gaps)
            assert all(0.0 < height <= 1.03 for height in heights)
    assert plots._apart([0.9, 0.2, 0.5], 0.0, 1.03) == [0.9, 0.2, 0.5]


def test_what_the_table_says(tmp_path):
    outcome = invoke("compare", *FEW, "--json", tmp_path / "numbers.json")
    lines = [line for line in outcome.out.splitlines() if line.startswith("│ exact ")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    row = json.loads((tmp_path / "numbers.json").read_text())["rows"][1]
    assert cells[0] == ["exact", "soft", "1.000", "1.000", "1.000", "0.000", "0"]
    assert cells[1][:2] == ["exact", f"{row['flops_ratio']:.2f}"]
    assert cells[1][4:6] == ["1", f"{row['flops_ratio']:.3g}"]


def test_estimators_of_several_steps_only():
    outcome = invoke(
        *("compare", *SMALL, "--steps", "0", "--unroll", "2"), *("--grad", "exact:fraction=0.5", "--grad", "unroll")
    )
    assert outcome.code == 0
    assert "left out   exact:fraction=0.5: takes one step at a time, not 2" in outcome.out
    assert "│ unroll " in outcome.out


def test_a_run_to_start_from(tmp_path):
    run, file = tmp_path / "run", tmp_path / "numbers.json"
    train = ("--steps", "3", "--finetune-steps", "0", "--no-baselines", "--unroll", "2", "--labels", "20")
    assert invoke("train", *SMALL[:6], *train, "--out", run).code == 0
    outcome = invoke("compare", "--run", run, *SMALL[4:], "--grad", "unroll", "--json", file)
    assert (outcome.code, outcome.err) == (0, "")
    record = json.loads(file.read_text())
    assert (record["run"], record["steps"]) == (str(run), 3)
    assert (record["config"]["unroll"], record["config"]["labels"], record["numbers"]) == (2, 20, 320)
    assert record["rows"][2]["cosine"] == pytest.approx(1.0)


def test_the_weights_of_the_run_are_those_that_are_compared(tmp_path):
    from metapl import run_folder  # noqa: PLC0415

    run = tmp_path / "run"
    assert invoke("train", *SMALL[:6], "--steps", "2", "--no-baselines", "--out", run).code == 0
    setting, networks = run_folder.load(run, "cpu")
    found = stage.restored(setting, networks)
    assert torch.equal(found.state.student.params["1.weight"], networks["student"].params["1.weight"])
    assert torch.equal(found.state.teacher.params["1.weight"], networks["teacher"].params["1.weight"])
    assert not torch.equal(found.state.student.params["1.weight"], found.state.teacher.params["1.weight"])


def test_a_run_without_a_teacher(tmp_path):
    run = tmp_path / "run"
    assert invoke("train", *SMALL[:6], "--steps", "2", "--method", "uda", "--out", run).code == 0
    assert_one_line(invoke("compare", "--run", run), "--method mpl")


def assert_one_line(outcome, word):
    assert outcome.code == 2
    assert outcome.err.startswith("metapl: ")
    assert (outcome.err.count("\n"), outcome.out) == (1, "")
    assert word in outcome.err


BAD = [
    ("--grad unrol", "'unrol': did you mean 'unroll'?"),
    ("--grad exact --grad first-order:baseline=2", "baseline=2"),
    ("--draws 1", "--draws 1"),
    ("--cosine 0", "--cosine 0.0"),
    ("--cosine 1", "--cosine 1.0"),
    ("--cosine nan", "--cosine nan"),
    ("--rounds 0", "--rounds 0"),
    ("--steps -1", "--steps -1"),
    ("--labels 0", "--labels 0"),
    ("--unroll 0", "--unroll 0"),
    ("--lr -1", "--lr -1"),
    ("--lr 1e30 --steps 5", "no longer finite"),
    ("--pseudo-labels sfot", "did you mean 'soft'?"),
    ("--data digits:shfit=1", "did you mean 'shift'?"),
    ("--run nowhere", "nowhere is not a run"),
    ("--run nowhere --labels 3 --steps 2", "leave out --labels, --steps"),
    ("--config nowhere.toml", "nowhere.toml"),
    ("--json file/numbers.json", "file/numbers.json"),
    ("--json .", "--json . must be a file"),
    ("--plot file/picture.png", "file/picture.png"),
    ("--plot picture.jpg", "ends in .png"),
    ("--nope", "--nope"),
]


@pytest.mark.parametrize(("args", "word"), BAD, ids=[args for args, _ in BAD])
def test_bad_input(tmp_path, monkeypatch, args, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    defaults = () if "--run" in args else SMALL[:4]
    assert_one_line(invoke("compare", *defaults, *args.split()), word)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "precious"


def test_a_file_that_is_there_is_kept_until_there_is_a_new_one(tmp_path):
    """A run that stops leaves the result of the last one alone."""
    file = tmp_path / "numbers.json"
    file.write_text("{}")
    assert invoke("compare", *SMALL, "--json", file, "--labels", "0").code == 2
    assert file.read_text() == "{}"
