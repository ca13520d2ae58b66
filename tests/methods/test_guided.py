"""The guide of a consistency loss: the target is p · g ^ weight, normalised."""

import numpy as np
import pytest
import torch
from asserts import assert_close_tree

from metapl import methods
from metapl.core import rng
from metapl.data.loader import Batch
from metapl.methods import base
from metapl.methods.consistency.predictions import Predictions
from metapl.registry.errors import InputError
from metapl.training import phases, population, seen
from metapl.training.config import TrainConfig
from metapl.training.experiment import GUIDE, prepare

POOL, BATCH, CLASSES = 11, 5, 3
RECIPE = base.Recipe(uda_temperature=1.0, uda_threshold=0.0)
TINY = {"data": "moons:points=60", "model": "mlp:width=3,depth=1", "labels": 6, "validation": 10, "steps": 3}
TINY |= {"method": "uda", "baselines": False, "device": "cpu", "batch": 8}


def logits(seed, rows=BATCH):
    return 2.0 * rng.normal(rng.key(seed), (rows, CLASSES)).double()


def softmax(values):
    return np.exp(values) / np.exp(values).sum(1, keepdims=True)


GUIDES = torch.log_softmax(logits(9, POOL), 1)
AT = torch.tensor([7, 0, 3, 3, 10])
"""Where the batch stands in the pool."""


def batch(at=AT):
    return Batch(torch.zeros(2, 1), torch.tensor([0, 2]), torch.zeros(BATCH, 1))._replace(unlabelled=at)


@pytest.mark.parametrize("weight", [1.0, 0.4, torch.tensor(2.0, dtype=torch.float64)])
def test_the_target_is_the_product_normalised(weight):
    views = {"labelled": logits(1, 2), "weak": logits(2), "strong": logits(3)}
    recipe = RECIPE._replace(guide=GUIDES, guide_weight=weight)
    _, (_, found) = base.self_loss(recipe, views, batch(), torch.tensor(0), recipe.consistency.init(torch.zeros(1)))
    product = softmax(views["weak"].numpy()) * np.exp(GUIDES[AT].numpy()) ** float(weight)
    target = product / product.sum(1, keepdims=True)
    expected = -(target * np.log(softmax(views["strong"].numpy()))).sum(1).mean()
    assert float(found["uda"]) == pytest.approx(expected, rel=1e-9)


def test_no_gradient_flows_into_the_guide_or_the_weak_view():
    views = {"labelled": logits(1, 2), "weak": logits(2).requires_grad_(), "strong": logits(3).requires_grad_()}
    recipe = RECIPE._replace(guide=GUIDES.clone().requires_grad_())
    total, _ = base.self_loss(recipe, views, batch(), torch.tensor(0), recipe.consistency.init(torch.zeros(1)))
    leaves = (views["weak"], recipe.guide, views["strong"])
    weak, guide, strong = torch.autograd.grad(total, leaves, allow_unused=True)
    assert weak is guide is None
    assert strong.abs().max() > 0


def test_a_weight_of_zero_is_no_guide():
    weak = logits(2)
    assert torch.equal(base.guided(RECIPE._replace(guide=GUIDES, guide_weight=0.0), weak, batch()), weak)
    assert base.guided(RECIPE, weak, batch(None)) is weak


def test_a_guide_needs_to_know_where_the_batch_stands():
    with pytest.raises(ValueError, match="positions in the pool"):
        base.guided(RECIPE._replace(guide=GUIDES), logits(2), batch(None))


def trained(**options):
    return phases.finish(phases.run(prepare(TrainConfig(**{**TINY, **options})))).networks


def test_a_run_without_weight_is_one_without_guide():
    none, zero = trained(guide="none"), trained(guide="consensus", guide_weight=0.0)
    assert_close_tree(tuple(zero["uda"]), tuple(none["uda"]), rtol=0)
    assert set(zero) == {"consensus", "uda"}
    with pytest.raises(AssertionError):
        assert_close_tree(tuple(trained(guide="consensus")["uda"]), tuple(none["uda"]), rtol=0)


@pytest.mark.parametrize("name", ["consensus", "logistic"])
def test_a_run_looks_up_what_its_guide_says_of_the_pool(name):
    given = prepare(TrainConfig(**TINY, guide=name))
    (spec, own) = methods.plan(given.config)
    assert (spec.name, own.name) == (name, "uda")
    network = seen.fitting(given)(spec.name, spec.fit).networks[name]
    found = phases.guided(given, spec, {name: network}).recipe.guide
    said, _ = given.models.of(name).apply(*network, given.data.x, train=False)
    np.testing.assert_allclose(found.exp(), softmax(said.double().numpy()), atol=1e-5)
    assert GUIDE not in phases.guided(given, own, {name: network}).varied


@pytest.mark.parametrize("name", ["consensu", "mpl", "uda"])
def test_what_cannot_guide_is_refused(name):
    with pytest.raises(InputError, match=rf"^unknown guide '{name}': .*consensus"):
        prepare(TrainConfig(**TINY, guide=name))


def test_classical_methods_can_guide():
    assert set(methods.guides()) == {*methods.PANEL, "consensus"}


def wanted(experiment):
    """The shares that predictions without any preference are aligned to."""
    rule = experiment.recipe.consistency.alignment
    even = Predictions(torch.zeros(2, 2), torch.zeros(4, 2))
    added, _ = rule.shift(rule.init(torch.zeros(1)), even)
    return torch.softmax(added, dim=0)


def guided(**options):
    given = prepare(TrainConfig(**{**TINY, "alignment": "uniform", **options}))
    spec = methods.plan(given.config)[0]
    network = seen.fitting(given)(spec.name, spec.fit).networks["consensus"]
    return given, phases.guided(given, spec, {"consensus": network})


def test_predictions_are_aligned_to_the_shares_of_the_answers():
    before, after = guided()
    shares = after.recipe.guide.exp().mean(0).float()
    assert wanted(before).tolist() == [0.5, 0.5]
    np.testing.assert_allclose(wanted(after), shares, atol=1e-6)


def test_a_prior_that_is_named_stays(tmp_path):
    (tmp_path / "prior.txt").write_text("upper 0.2\nlower 0.8\n")
    _, after = guided(prior=str(tmp_path / "prior.txt"))
    np.testing.assert_allclose(wanted(after), [0.2, 0.8], atol=1e-6)
    np.testing.assert_allclose(after.recipe.guide.exp().mean(0), [0.2, 0.8], atol=0.05)


def test_members_of_a_population_have_shares_of_their_own():
    configs = [TrainConfig(**{**TINY, "alignment": "uniform", "guide": "consensus", "seed": seed}) for seed in (0, 1)]
    together = {}
    for index, event in population.train_all(population.members(configs)):
        if index is not None and isinstance(event, phases.Finished):
            together[index] = event.result.networks["uda"]
    alone = [trained(alignment="uniform", guide="consensus", seed=seed)["uda"] for seed in (0, 1)]
    for index, found in enumerate(alone):
        assert_close_tree(tuple(together[index]), tuple(found), rtol=1e-4, atol=1e-5)
