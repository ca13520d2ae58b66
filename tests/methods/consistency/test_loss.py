"""The loss that the rules make together: that of UDA by default, and every preset's in numpy."""

import numpy as np
import pytest
import torch
from predictions import BATCH, CLASSES, LIKE, POOL, PRIOR, cross_entropy, given, logits, one_hot, softmax

from metapl.core import losses
from metapl.methods.consistency import alignment, target, threshold
from metapl.methods.consistency.loss import Consistency, Memory, consistency_loss

STRONG = logits(77)
TEMPERATURE, TAU = 0.5, 0.6


def loss(rules, seen, memory=None, strong=STRONG):
    memory = rules.init(LIKE) if memory is None else memory
    return consistency_loss(rules, memory, seen, torch.as_tensor(strong), TEMPERATURE, TAU)


def test_without_rules_it_is_that_of_uda_bit_for_bit():
    seen, _, _ = given(0)
    for dtype in (torch.float32, torch.float64):
        weak, strong = seen.weak.to(dtype), torch.from_numpy(STRONG).to(dtype)
        found, memory = loss(Consistency(), seen._replace(weak=weak), strong=strong)
        assert torch.equal(found, losses.uda(weak, strong, TEMPERATURE, TAU).mean())
        assert memory == Memory()


KINDS = {
    "sharpened": lambda w: (softmax(w / TEMPERATURE),) * 2,
    "soft": lambda w: (softmax(w),) * 2,
    "hard": lambda w: (softmax(w), one_hot(w.argmax(-1))),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_targets(kind):
    assert set(KINDS) == set(target.CONSISTENCY_TARGETS)
    seen, _, weak = given(1)
    p, aim = KINDS[kind](weak)
    expected = (cross_entropy(STRONG, aim) * (p.max(-1) >= TAU)).mean()
    rules = Consistency(target=target.CONSISTENCY_TARGETS[kind]())
    np.testing.assert_allclose(loss(rules, seen)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_alignment_comes_before_the_sharpening(kind):
    seen, _, weak = given(2)
    p = softmax(weak) * PRIOR / softmax(weak).mean(0)
    confident, aim = KINDS[kind](np.log(p / p.sum(-1, keepdims=True)))
    expected = (cross_entropy(STRONG, aim) * (confident.max(-1) >= TAU)).mean()
    rules = Consistency(alignment=alignment.uniform(POOL), target=target.CONSISTENCY_TARGETS[kind]())
    np.testing.assert_allclose(loss(rules, seen)[0], expected, rtol=1e-12)


def test_softmatch_aligns_the_weights_and_not_the_targets():
    """Its uniform alignment is by a running mean; the first is uniform, so that the prior must not be."""
    rules = Consistency(
        alignment.marginal(POOL, decay=0.9, targets=False), threshold.gaussian(POOL, decay=0.9), target.hard()
    )
    memory, mean, centre, spread = rules.init(LIKE), np.full(CLASSES, 1 / CLASSES), 1 / CLASSES, 1.0
    turned = 0
    for seed in range(4):
        seen, _, weak = given(seed)
        p = softmax(weak) * PRIOR / mean
        confidence = (p / p.sum(-1, keepdims=True)).max(-1)
        mean = 0.9 * mean + 0.1 * softmax(weak).mean(0)
        centre = 0.9 * centre + 0.1 * confidence.mean()
        spread = 0.9 * spread + 0.1 * confidence.var(ddof=1)
        weights = np.exp(-(np.minimum(confidence - centre, 0) ** 2) * 4 / (2 * spread))
        expected = (cross_entropy(STRONG, one_hot(weak.argmax(-1))) * weights).mean()
        found, memory = loss(rules, seen, memory)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        turned += (p.argmax(-1) != weak.argmax(-1)).any()
    assert turned  # or aligned targets would give the same


def test_freematch_adds_its_fairness():
    rules = Consistency(alignment.fair(POOL, weight=0.5, decay=0.9), threshold.adaptive(POOL, decay=0.2), target.hard())
    seen, _, weak = given(3)
    found, memory = loss(rules, seen)
    weights, _ = rules.threshold.weigh(rules.init(LIKE).threshold, torch.from_numpy(softmax(weak)), TAU, seen)
    assert 0 < int(weights.sum()) < BATCH
    held = (cross_entropy(STRONG, one_hot(weak.argmax(-1))) * weights.numpy()).mean()
    penalty = rules.alignment.penalty(memory.alignment, torch.from_numpy(STRONG), weights)
    assert abs(float(penalty)) > 0.1
    np.testing.assert_allclose(found, held + float(penalty), rtol=1e-12)


@pytest.mark.parametrize("name", list(alignment.ALIGNMENTS))
def test_no_gradient_flows_through_what_the_weak_view_says(name):
    rules = Consistency(alignment.ALIGNMENTS[name](POOL), threshold.gaussian(POOL), target.sharpened())
    seen, _, _ = given(4)
    strong = torch.from_numpy(STRONG).requires_grad_()
    seen = seen._replace(weak=seen.weak.requires_grad_(), labelled=seen.labelled.requires_grad_())
    total, memory = loss(rules, seen, strong=strong)
    grads = torch.autograd.grad(total, [strong, seen.weak, seen.labelled], allow_unused=True)
    assert grads[0].abs().sum() > 0
    assert grads[1:] == (None, None)
    assert not any(leaf.requires_grad for part in memory for leaf in part if isinstance(leaf, torch.Tensor))
