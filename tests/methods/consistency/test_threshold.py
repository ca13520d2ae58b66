"""Every threshold against its paper's formula, in numpy, and its limits."""

import numpy as np
import pytest
import torch
from predictions import BATCH, CLASSES, EXAMPLES, LIKE, POOL, UNLABELLED, given, logits, softmax

from metapl.methods.consistency.predictions import Pool
from metapl.methods.consistency.threshold import THRESHOLDS, adaptive, fixed, flexible, gaussian, none, relative
from metapl.registry.notation import options

TAU = 0.7
DECAY = 0.75


def weigh(rule, memory, seen, tau=TAU):
    p = torch.softmax(seen.weak, -1)
    weights, memory = rule.weigh(memory, p, tau, seen)
    return weights.double().numpy(), memory


def test_none_and_fixed():
    seen, _, weak = given(0)
    confidence = softmax(weak).max(-1)
    assert 0 < (confidence >= TAU).mean() < 1
    np.testing.assert_array_equal(weigh(none(POOL), (), seen)[0], np.ones(BATCH))
    np.testing.assert_array_equal(weigh(fixed(POOL), (), seen)[0], confidence >= TAU)


def test_relative_is_a_share_of_the_labelled_confidence():
    differ = 0
    for seed in range(6):
        seen, labelled, weak = given(seed)
        level = 0.9 * softmax(labelled).max(-1).mean()
        expected = softmax(weak).max(-1) >= level
        np.testing.assert_array_equal(weigh(relative(POOL), (), seen, 0.9)[0], expected)
        differ += (expected != (softmax(weak).max(-1) >= 0.9)).any()
    assert differ  # or the test could not tell it from `fixed`


@pytest.mark.parametrize("warmup", [True, False])
def test_flexible_is_curriculum_pseudo_labelling(warmup):
    """Algorithm 1 of the paper, with a loop over examples."""
    rule = flexible(POOL, warmup=warmup)
    memory, said, generator = rule.init(LIKE), np.full(EXAMPLES, -1), np.random.default_rng(0)
    differ = 0
    for seed in range(12):
        positions = generator.permutation(EXAMPLES)[:BATCH]
        seen, _, weak = given(seed, positions)
        p = softmax(weak)
        counts = np.array([(said == c).sum() for c in range(CLASSES)])
        most = max(counts.max(), UNLABELLED - counts.sum()) if warmup else max(counts.max(), 1)
        beta = counts / most
        thresholds = beta / (2 - beta) * TAU
        expected = p.max(-1) >= thresholds[p.argmax(-1)]
        weights, memory = weigh(rule, memory, seen)
        np.testing.assert_array_equal(weights, expected)
        differ += (expected != (p.max(-1) >= TAU)).any()
        for row, position in enumerate(positions):
            if p[row].max() >= TAU:
                said[position] = p[row].argmax()
        np.testing.assert_array_equal(memory, said)
    assert differ > 3


def test_the_largest_flexible_threshold_is_tau():
    """Once the best learnt class outnumbers what was never sure, it has β = 1 and M(1) = 1."""
    said = torch.full((EXAMPLES,), -1)
    said[:15], said[15:20] = 2, 0
    rule = flexible(POOL)
    seen, _, _ = given(0, list(range(BATCH)))
    for confidence, expected in ((TAU, 1.0), (TAU - 1e-9, 0.0)):
        p = torch.full((BATCH, CLASSES), (1 - confidence) / 3, dtype=torch.float64)
        p[:, 2] = confidence
        assert rule.weigh(said, p, TAU, seen)[0].double().unique().tolist() == [expected]
    # Class 0 has β = 5 / 15, so that M(β) = 1 / 5; class 1 was never sure, so that every example of it counts.
    for confidence, expected in ((0.3, 1.0), (0.28 - 1e-9, 0.0)):
        p = torch.full((BATCH, CLASSES), (1 - confidence) / 3, dtype=torch.float64)
        p[:, 0] = confidence
        level = rule.weigh(said, p, 2 * TAU, seen)[0].double().unique().tolist()
        assert level == [expected]


def test_an_example_twice_in_a_batch_is_said_to_be_of_one_class():
    rule = flexible(POOL)
    p = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.0, 0.0, 0.9, 0.1], [0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    for order in ([0, 1, 2], [1, 0, 2]):
        seen = given(0)[0]._replace(weak=p[order].log(), positions=torch.tensor([7, 7, 7]))
        after = rule.weigh(rule.init(LIKE), p[order], TAU, seen)[1]
        assert int(after[7]) == 2
        assert int((after >= 0).sum()) == 1


def test_adaptive_is_the_self_adaptive_threshold():
    rule = adaptive(POOL, decay=DECAY)
    memory, level, mean = rule.init(LIKE), 1 / CLASSES, np.full(CLASSES, 1 / CLASSES)
    assert float(memory.overall) == 1 / CLASSES
    differ = 0
    for seed in range(8):
        seen, _, weak = given(seed)
        p = softmax(weak + np.array([1.0, 0.0, 0.0, -1.0]))
        seen = seen._replace(weak=torch.from_numpy(weak + np.array([1.0, 0.0, 0.0, -1.0])))
        level = DECAY * level + (1 - DECAY) * p.max(-1).mean()
        mean = DECAY * mean + (1 - DECAY) * p.mean(0)
        expected = p.max(-1) >= (mean / mean.max() * level)[p.argmax(-1)]
        weights, memory = weigh(rule, memory, seen)
        np.testing.assert_array_equal(weights, expected)
        np.testing.assert_allclose(memory.overall, level, rtol=1e-12)
        np.testing.assert_allclose(memory.mean, mean, rtol=1e-12)
        differ += (expected != (p.max(-1) >= level)).any()
    assert differ  # the classes have thresholds of their own


@pytest.mark.parametrize("sigmas", [1.0, 2.0])
def test_gaussian_is_the_truncated_bell(sigmas):
    rule = gaussian(POOL, decay=DECAY, sigmas=sigmas)
    memory, mean, variance = rule.init(LIKE), 1 / CLASSES, 1.0
    for seed in range(5):
        seen, _, weak = given(seed)
        confidence = softmax(weak).max(-1)
        mean = DECAY * mean + (1 - DECAY) * confidence.mean()
        variance = DECAY * variance + (1 - DECAY) * confidence.var(ddof=1)
        bell = np.exp(-((confidence - mean) ** 2) / (2 * variance / sigmas**2))
        weights, memory = weigh(rule, memory, seen)
        np.testing.assert_allclose(weights, np.where(confidence < mean, bell, 1.0), rtol=1e-12)
        np.testing.assert_allclose([memory.mean, memory.variance], [mean, variance], rtol=1e-12)
        assert ((weights > 0) & (weights <= 1)).all()
        assert 0 < (weights == 1).mean() < 1


def test_a_batch_of_equals_weighs_one():
    """Also where its variance is 0, and where there is one example only."""
    for rows in (5, 1):
        weak = torch.from_numpy(np.tile(logits(0)[3], (rows, 1)))
        seen = given(0)[0]._replace(weak=weak)
        assert weigh(gaussian(POOL, decay=0.0), gaussian(POOL).init(LIKE), seen)[0].tolist() == [1.0] * rows


@pytest.mark.parametrize("name", list(THRESHOLDS))
def test_it_is_vectorised_and_leaves_its_memory_as_it_was(name):
    rule = THRESHOLDS[name](POOL)
    members = [given(seed, [(seed + 3 * row) % EXAMPLES for row in range(BATCH)])[0] for seed in range(3)]
    memory = rule.init(LIKE)
    memories = [rule.weigh(memory, torch.softmax(seen.weak, -1), TAU, seen)[1] for seen in members]
    before = [[leaf.clone() for leaf in (one if isinstance(one, tuple) else (one,))] for one in memories]
    stacked = [torch.stack(parts) for parts in zip(*before, strict=True)]
    together = lambda *parts: type(memory)(*parts) if isinstance(memory, tuple) and memory else parts[0]  # noqa: E731

    def step(labelled, weak, positions, tau, *parts):
        seen = members[0]._replace(labelled=labelled, weak=weak, positions=positions)
        return rule.weigh(together(*parts) if parts else (), torch.softmax(weak, -1), tau, seen)[0]

    fields = [torch.stack(parts) for parts in zip(*members, strict=True)]
    tau = torch.tensor([0.6, 0.7, 0.8])
    found = torch.vmap(step)(*fields, tau, *stacked)
    for index, seen in enumerate(members):
        alone = rule.weigh(memories[index], torch.softmax(seen.weak, -1), float(tau[index]), seen)[0]
        torch.testing.assert_close(found[index].double(), alone.double())
        kept = memories[index] if isinstance(memories[index], tuple) else (memories[index],)
        assert all(torch.equal(one, other) for one, other in zip(kept, before[index], strict=True))


def test_positions_are_asked_for():
    with pytest.raises(ValueError, match="the batch needs its positions in the pool"):
        weigh(flexible(POOL), flexible(POOL).init(LIKE), given(0)[0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: adaptive(POOL, decay=1.0), r"decay=1\.0 must be"),
        (lambda: gaussian(POOL, decay=2.0), r"decay=2\.0 must be"),
        (lambda: gaussian(POOL, sigmas=0.0), r"sigmas=0\.0 must be positive"),
    ],
)
def test_what_is_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_nothing_is_remembered_of_more_than_is_there():
    assert flexible(Pool(torch.ones(3) / 3, 12, 10)).init(LIKE).tolist() == [-1] * 12


def test_what_is_not_given_is_as_published():
    assert options(flexible) == {"warmup": True}
    assert options(adaptive) == {"decay": 0.999}
    assert options(gaussian) == {"decay": 0.999, "sigmas": 2.0}


def test_a_threshold_is_met_by_equality():
    """Of three quarters in two classes, which a float holds exactly."""
    p = torch.tensor([[0.75, 0.25, 0.0, 0.0]] * 2, dtype=torch.float64)
    seen = given(0)[0]._replace(labelled=p.log(), weak=p.log(), positions=torch.tensor([0, 1]))
    assert fixed(POOL).weigh((), p, 0.75, seen)[0].all()
    like_labelled = torch.softmax(seen.labelled, -1)  # of equal rows, so that the mean is exact
    assert relative(POOL).weigh((), like_labelled, 1.0, seen)[0].all()
    assert not relative(POOL).weigh((), like_labelled, 1.0 + 1e-9, seen)[0].any()
    assert flexible(POOL).weigh(flexible(POOL).init(LIKE), p, 0.75, seen)[1][:2].tolist() == [0, 0]
    rule = adaptive(POOL, decay=0.0)
    assert rule.weigh(rule.init(LIKE), p, 0.0, seen)[0].all()


def test_one_example_has_no_variance():
    rule = gaussian(POOL, decay=0.5)
    memory = weigh(rule, rule.init(LIKE), given(0)[0]._replace(weak=torch.from_numpy(logits(0, 1))))[1]
    assert float(memory.variance) == 0.5  # half of the 1 that it begins with


def test_an_example_that_was_sure_once_keeps_its_class():
    rule = flexible(POOL)
    seen = given(0)[0]._replace(positions=torch.tensor([3, 4]))
    sure = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.0, 0.0, 0.1, 0.9]], dtype=torch.float64)
    said = rule.weigh(rule.init(LIKE), sure, TAU, seen)[1]
    unsure = torch.tensor([[0.4, 0.6, 0.0, 0.0], [0.0, 0.8, 0.2, 0.0]], dtype=torch.float64)
    assert rule.weigh(said, unsure, TAU, seen)[1][3:5].tolist() == [0, 1]
