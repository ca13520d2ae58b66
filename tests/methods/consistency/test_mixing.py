"""Mixing against its definition by loops, its shares against the distribution, and the loss of mixed targets."""

import numpy as np
import pytest
import torch
from predictions import BATCH, LIKE, POOL, cross_entropy, given, logits, softmax
from scipy import stats

from metapl.core import rng
from metapl.methods import base
from metapl.methods.consistency import mixing, target, threshold
from metapl.methods.consistency.loss import Consistency, consistency_loss
from metapl.methods.consistency.mixing import MIXINGS, cutmix, mixup, none
from metapl.registry.errors import InputError
from metapl.registry.notation import options

IMAGES = torch.randn(BATCH, 2, 8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_none_is_the_same_tensor():
    assert none()(IMAGES, rng.key(0)) == (IMAGES, None)


@pytest.mark.parametrize("x", [IMAGES, IMAGES[:, 0, 0]], ids=["images", "vectors"])
def test_mixup(x):
    found, mixed = mixup()(x, rng.key(1))
    assert sorted(mixed.partner.tolist()) == list(range(BATCH))
    assert ((mixed.share > 0) & (mixed.share < 1)).all()
    for row in range(BATCH):
        share, other = float(mixed.share[row]), int(mixed.partner[row])
        torch.testing.assert_close(found[row], share * x[row] + (1 - share) * x[other], rtol=1e-12, atol=1e-12)


def test_cutmix_puts_a_box_of_the_other_into_the_example():
    sizes = set()
    for seed in range(20):
        found, mixed = cutmix()(IMAGES, rng.key(seed))
        for row in range(BATCH):
            taken = (found[row] == IMAGES[mixed.partner[row]]).all(0)
            kept = (found[row] == IMAGES[row]).all(0)
            assert (taken | kept).all()
            if int(mixed.partner[row]) == row:
                continue
            rows, columns = taken.any(1), taken.any(0)
            assert torch.equal(taken, rows[:, None] & columns)  # a rectangle …
            for line in (rows, columns):
                assert line.long().diff().abs().sum() <= 2  # … in one piece
            assert float(mixed.share[row]) == pytest.approx(1 - taken.double().mean().item())
            sizes.add(int(taken.sum()))
    assert len(sizes) > 10


def test_the_box_is_as_large_as_the_share_says_where_no_border_cuts_it():
    """Of many draws on a large image, the mean of the area is that of clipped boxes, by Monte Carlo in numpy."""
    x = torch.zeros(4000, 1, 40, 40)
    _, mixed = cutmix()(x, rng.key(3))
    generator = np.random.default_rng(0)
    side = np.sqrt(1 - generator.uniform(size=200_000))
    ends = [np.clip(generator.uniform(size=(200_000, 1)) + side[:, None] * [-0.5, 0.5], 0, 1) for _ in range(2)]
    area = np.prod([end[:, 1] - end[:, 0] for end in ends], axis=0)
    assert float(1 - mixed.share.mean()) == pytest.approx(area.mean(), abs=0.012)


@pytest.mark.parametrize("alpha", [0.3, 0.75, 1.0, 4.0])
def test_the_shares_have_the_distribution(alpha):
    _, mixed = mixup(alpha=alpha)(torch.zeros(4000, 1, dtype=torch.float64), rng.key(5))
    assert stats.kstest(mixed.share.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_the_loss_is_that_of_both_targets_in_their_shares():
    rules = Consistency(threshold=threshold.gaussian(POOL), target=target.hard())
    seen, _, weak = given(0)
    strong = logits(9)
    _, mixed = mixup()(torch.zeros(BATCH, 1, dtype=torch.float64), rng.key(2))
    found, _ = consistency_loss(rules, rules.init(LIKE), seen, torch.from_numpy(strong), 1.0, 0.5, mixed)
    weights = rules.threshold.weigh(rules.init(LIKE).threshold, torch.from_numpy(softmax(weak)), 0.5, seen)[0].numpy()
    expected = 0.0
    for row in range(BATCH):
        share, other = float(mixed.share[row]), int(mixed.partner[row])
        for part, source in ((share, row), (1 - share, other)):
            aim = np.eye(weak.shape[1])[[weak[source].argmax()]]
            expected += part * weights[source] * cross_entropy(strong[[row]], aim)[0] / BATCH
    assert float(found) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_it_is_vectorised_over_keys(name):
    mix = MIXINGS[name]()
    keys = torch.stack([rng.key(seed) for seed in range(3)])
    found, mixed = torch.vmap(mix, (None, 0))(IMAGES, keys)
    for index, key in enumerate(keys):
        alone, own = mix(IMAGES, key)
        torch.testing.assert_close(found[index], alone, rtol=1e-12, atol=1e-14)
        assert torch.equal(mixed.partner[index], own.partner)
    assert not torch.equal(found[0], found[1])


def test_the_views_are_those_of_before_and_mixed_where_there_is_a_weak_one():
    x = {"labelled": IMAGES[:2], "weak": IMAGES, "strong": IMAGES + 1}
    recipe = base.Recipe(consistency=Consistency(mixing=mixing.mixup()))
    found, mixed = base.mix(recipe, x, rng.key(0))
    assert found["labelled"] is x["labelled"]
    assert found["weak"] is x["weak"]
    torch.testing.assert_close(found["strong"], mixed.of(x["strong"]))
    assert list(found) == list(x)
    without = {"labelled": x["labelled"], "strong": x["strong"]}
    assert base.mix(recipe, without, rng.key(0)) == (without, None)


def test_what_is_refused():
    assert (options(mixup), options(cutmix)) == ({"alpha": 0.75}, {"alpha": 1.0})
    with pytest.raises(ValueError, match=r"alpha=0\.0 must be positive"):
        mixup(alpha=0.0)
    with pytest.raises(InputError, match="mixing = cutmix is for images: take mixup, which is for vectors too"):
        cutmix()(torch.zeros(3, 4), rng.key(0))
