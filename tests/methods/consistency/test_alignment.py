"""Every alignment against its paper's formula, in numpy, and its fixed points."""

import numpy as np
import pytest
import torch
from predictions import BATCH, CLASSES, LIKE, POOL, PRIOR, given, logits, one_hot, softmax

from metapl.methods.consistency.alignment import ALIGNMENTS, adamatch, fair, marginal, none, uniform
from metapl.methods.consistency.predictions import Pool, Predictions
from metapl.registry.notation import options

EVEN = np.full(CLASSES, 1.0 / CLASSES)


def aligned(rule, seen, memory=()):
    """The aligned probabilities."""
    shift, _ = rule.shift(memory, seen)
    return softmax((seen.weak + shift).numpy())


def normalised(values):
    return values / values.sum(-1, keepdims=True)


def test_none_changes_no_bit():
    seen, _, weak = given(0)
    shift, memory = none(POOL).shift((), seen)
    assert torch.equal(torch.softmax(seen.weak + shift, -1), torch.softmax(torch.from_numpy(weak), -1))
    assert memory == ()


def test_uniform_divides_by_the_mean_of_the_batch():
    seen, _, weak = given(1)
    p = softmax(weak)
    np.testing.assert_allclose(aligned(uniform(POOL), seen), normalised(p * PRIOR / p.mean(0)), rtol=1e-12)
    even = Pool(torch.from_numpy(EVEN))
    np.testing.assert_allclose(aligned(uniform(even), seen), normalised(p / p.mean(0)), rtol=1e-12)


def test_marginal_divides_by_the_running_mean_of_the_steps_before():
    rule = marginal(POOL, decay=0.75)
    memory, mean = rule.init(LIKE), EVEN
    for seed in range(4):
        seen, _, weak = given(seed)
        p = softmax(weak)
        np.testing.assert_allclose(aligned(rule, seen, memory), normalised(p * PRIOR / mean), rtol=1e-12)
        memory = rule.shift(memory, seen)[1]
        mean = 0.75 * mean + 0.25 * p.mean(0)
        np.testing.assert_allclose(memory, mean, rtol=1e-12)


def test_adamatch_takes_the_ratio_of_the_means():
    seen, labelled, weak = given(2)
    p = softmax(weak)
    expected = normalised(p * softmax(labelled).mean(0) / p.mean(0))
    np.testing.assert_allclose(aligned(adamatch(POOL), seen), expected, rtol=1e-12)


def shares(classes, mask):
    return one_hot(classes)[mask].mean(0)


def over(values, counts):
    """values / counts, normalised, without the classes that are not there."""
    return normalised(np.divide(values, counts, out=np.zeros_like(values), where=counts > 0))


def test_fairness_is_the_negative_cross_entropy_of_the_paper():
    rule = fair(POOL, weight=0.3, decay=0.8)
    memory, mean, share = rule.init(LIKE), EVEN, EVEN
    for seed in range(3):
        seen, _, weak = given(seed)
        p = softmax(weak)
        mean, share = 0.8 * mean + 0.2 * p.mean(0), 0.8 * share + 0.2 * one_hot(p.argmax(-1)).mean(0)
        shift, memory = rule.shift(memory, seen)
        assert shift == 0.0
        np.testing.assert_allclose(memory.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(memory.share, share, rtol=1e-12)
        strong, mask = logits(seed + 50), np.arange(BATCH) % 3 > 0
        q = softmax(strong)
        chosen = over(q[mask].mean(0), shares(q.argmax(-1), mask))
        present = chosen > 0
        expected = (over(mean, share)[present] * np.log(chosen[present])).sum()
        expected += over(mean, share)[~present].sum() * np.log(1e-6)
        found = rule.penalty(memory, torch.from_numpy(strong), torch.from_numpy(mask))
        np.testing.assert_allclose(found, 0.3 * expected, rtol=1e-10)


def test_the_gradient_of_fairness_is_that_of_central_differences():
    rule = fair(POOL, weight=0.3)
    memory = rule.shift(rule.init(LIKE), given(3)[0])[1]
    strong = torch.from_numpy(logits(60))
    weights = (torch.arange(BATCH) % 2).double()
    grad = torch.func.grad(lambda at: rule.penalty(memory, at, weights))(strong)
    step = 1e-6
    for row, column in ((1, 0), (3, 2), (7, 3), (2, 1)):
        moved = torch.zeros_like(strong)
        moved[row, column] = step
        up, down = (rule.penalty(memory, strong + sign * moved, weights) for sign in (1, -1))
        torch.testing.assert_close(grad[row, column], (up - down) / (2 * step), rtol=1e-5, atol=1e-9)
    assert not grad[::2].any()  # of no weight


def test_fairness_without_an_example_is_nothing():
    rule = fair(POOL)
    strong = torch.from_numpy(logits(1))
    value, grad = (
        rule.penalty(rule.init(LIKE), strong, torch.zeros(BATCH)),
        torch.func.grad(lambda at: rule.penalty(rule.init(LIKE), at, torch.zeros(BATCH)))(strong),
    )
    assert float(value) == 0.0
    assert not grad.any()


def test_fairness_is_least_where_the_prediction_is_spread_as_the_weak_views_are():
    """It is the negative of a cross entropy, so that it falls as a class that the weak views have is left out."""
    rule = fair(POOL, weight=1.0)
    memory, ones = rule.init(LIKE), torch.ones(CLASSES)
    spread = torch.eye(CLASSES, dtype=torch.float64) * 3
    even = rule.penalty(memory, spread, ones)
    torch.testing.assert_close(even, torch.tensor(-np.log(CLASSES)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("build", [uniform, marginal])
def test_a_batch_whose_mean_is_the_prior_stays_as_it_is(build):
    """Two classes are said in the shares of the prior; for `marginal` the running mean is the prior too."""
    prior = np.array([0.7, 0.1, 0.1, 0.1])
    p = np.stack([[0.8, 0.1, 0.05, 0.05], [0.6, 0.1, 0.15, 0.15]])
    np.testing.assert_allclose(p.mean(0), prior)
    seen = Predictions(torch.zeros(1, CLASSES), torch.from_numpy(np.log(p)))
    memory = () if build is uniform else torch.from_numpy(prior)
    np.testing.assert_allclose(aligned(build(Pool(torch.from_numpy(prior))), seen, memory), p, rtol=1e-12)


def test_adamatch_leaves_a_batch_alone_that_is_like_the_labelled_one():
    weak = torch.from_numpy(logits(4))
    shift, _ = adamatch(POOL).shift((), Predictions(weak[torch.randperm(BATCH)], weak))
    torch.testing.assert_close(shift, torch.zeros(CLASSES, dtype=torch.float64), rtol=0, atol=1e-12)


def test_iterating_brings_the_mean_to_the_prior():
    """Each alignment is one step of iterative proportional fitting; to begin with the mean is far from the prior."""
    rule, weak = uniform(POOL), torch.from_numpy(logits(5) + np.array([0.0, 2.0, -2.0, 1.0]))
    distances = []
    for _ in range(200):
        distances.append(np.abs(softmax(weak.numpy()).mean(0) - PRIOR).sum())
        weak = weak + rule.shift((), Predictions(weak, weak))[0]
    assert distances[0] > 0.5
    assert distances[1] < distances[0]
    assert distances[-1] < 1e-6


def test_a_class_that_nobody_is_said_to_be_of_gives_no_infinity():
    weak = torch.zeros(BATCH, CLASSES)
    weak[:, 0] = 200.0
    shift, _ = uniform(POOL).shift((), Predictions(weak, weak))
    assert torch.isfinite(shift).all()


@pytest.mark.parametrize("name", list(ALIGNMENTS))
def test_it_is_vectorised_and_keeps_the_dtype(name):
    rule = ALIGNMENTS[name](POOL)
    for dtype in (torch.float32, torch.float64):
        several = torch.stack([given(seed)[0].weak for seed in range(3)]).to(dtype)
        labelled = torch.stack([given(seed)[0].labelled for seed in range(3)]).to(dtype)

        def step(weak, labelled, memory, rule=rule):
            shift, memory = rule.shift(memory, Predictions(labelled, weak))
            return weak + shift, memory

        memory = rule.init(torch.zeros((), dtype=dtype))
        together, after = torch.vmap(step, (0, 0, None), out_dims=(0, 0 if name in ("marginal", "fair") else None))(
            several, labelled, memory
        )
        for index in range(3):
            alone, remembered = step(several[index], labelled[index], memory)
            torch.testing.assert_close(together[index], alone)
            for one, other in zip(after, remembered, strict=False):
                assert one.dtype == other.dtype == dtype
        assert together.dtype == dtype


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: marginal(POOL, decay=1.0), r"decay=1\.0 must be at least 0 and less than 1"),
        (lambda: fair(POOL, decay=-0.1), r"decay=-0\.1 must be"),
        (lambda: fair(POOL, weight=-1.0), r"weight=-1\.0 must not be negative"),
    ],
)
def test_what_is_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("build", [uniform, marginal, adamatch])
def test_the_targets_may_be_left_as_they_are(build):
    assert [build(POOL).targets, build(POOL, targets=False).targets] == [True, False]
    assert none(POOL).targets
    assert fair(POOL).targets


def test_what_is_not_given_is_as_published():
    """128 batches of ReMixMatch are a decay of 1 − 1/128; FreeMatch has a weight of 0.05 and a decay of 0.999."""
    assert options(marginal) == {"decay": pytest.approx(1 - 1 / 128, abs=2e-4), "targets": True}
    assert options(fair) == {"weight": 0.05, "decay": 0.999}
    assert fair(POOL, weight=0.0).penalty(fair(POOL).init(LIKE), torch.from_numpy(logits(0)), torch.ones(BATCH)) == 0
