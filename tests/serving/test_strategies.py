"""What to label next, against scores written out in numpy, and against steps that are taken."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy as scipy_entropy
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.registry import notation
from metapl.registry.errors import InputError
from metapl.serving import strategies
from metapl.serving.strategies import STRATEGIES, Asked


def logits_of(examples=40, classes=4, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=2.0, size=(examples, classes)))


def probabilities(logits):
    powers = np.exp(logits.numpy())
    return powers / powers.sum(1, keepdims=True)


def assert_picks(picked, scores, count):
    order = np.argsort(-scores, kind="stable")[:count]
    assert picked.examples.tolist() == order.tolist()
    np.testing.assert_allclose(picked.score.numpy(), scores[order], rtol=1e-10)


def test_margin_is_one_less_the_gap_of_the_two_best():
    logits = logits_of()
    best = np.sort(probabilities(logits), axis=1)
    assert_picks(strategies.margin()(Asked(logits), 7), 1 - (best[:, -1] - best[:, -2]), 7)


def test_entropy_is_that_of_scipy():
    logits = logits_of()
    assert_picks(strategies.entropy()(Asked(logits), 7), scipy_entropy(probabilities(logits), axis=1), 7)


def test_disagreement_of_two_networks_is_the_jensen_shannon_divergence():
    one, other = logits_of(seed=1), logits_of(seed=2)
    picked = strategies.disagreement()(Asked(one, networks=lambda: [one, other]), 7)
    divergence = jensenshannon(probabilities(one), probabilities(other), axis=1) ** 2
    assert_picks(picked, divergence, 7)


def test_networks_that_are_unsure_in_the_same_way_do_not_disagree():
    flat = torch.zeros(3, 4, dtype=torch.float64)
    picked = strategies.disagreement()(Asked(flat, networks=lambda: [flat, flat, flat]), 3)
    assert picked.score.abs().max() < 1e-12


class TestDiverse:
    def embedded(self, logits, features):
        """The gradients of the last layer, with autograd: of the loss for the predicted label."""
        found = []
        for one, seen in zip(logits, features, strict=True):
            weight = torch.zeros(len(one), len(seen), dtype=torch.float64, requires_grad=True)
            said = one + weight @ seen
            (gradient,) = torch.autograd.grad(F.cross_entropy(said[None], one.argmax()[None]), weight)
            found.append(gradient.flatten().numpy())
        return np.stack(found)

    def test_scores_are_squared_distances_between_gradients_of_the_last_layer(self):
        logits, features = logits_of(), logits_of(classes=6, seed=3)
        picked = strategies.diverse()(Asked(logits, features=lambda: features), 8)
        vectors, taken = self.embedded(logits, features), picked.examples.tolist()
        assert taken[0] == np.square(vectors).sum(1).argmax()
        for place in range(1, 8):
            gaps = np.square(vectors[taken[:place]] - vectors[taken[place]]).sum(1)
            assert picked.score[place] == pytest.approx(min(gaps.min(), np.square(vectors[taken[place]]).sum()))

    def test_no_example_and_no_copy_of_one_is_taken_twice(self):
        logits, features = logits_of(5), logits_of(5, classes=3, seed=3)
        asked = Asked(logits.repeat(4, 1), features=lambda: features.repeat(4, 1))
        picked = strategies.diverse()(asked, 5)
        assert sorted(index % 5 for index in picked.examples.tolist()) == [0, 1, 2, 3, 4]

    def test_it_stops_where_nothing_is_left_that_differs(self):
        logits, features = logits_of(1).repeat(6, 1), logits_of(1, seed=3).repeat(6, 1)
        assert len(strategies.diverse()(Asked(logits, features=lambda: features), 5).examples) == 1

    def test_another_seed_takes_others(self):
        asked = Asked(logits_of(200), features=lambda: logits_of(200, seed=5))
        one, other = (strategies.diverse(seed=seed)(asked, 20).examples.tolist() for seed in (0, 1))
        assert one != other
        assert one[0] == other[0]


def test_effect_is_how_much_a_step_on_the_example_moves_the_loss_by_its_label():
    """Steps are taken on each example with each label, and the loss on other examples is measured before and after."""
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)).double()
    x, known = (torch.randn(count, 3, generator=generator, dtype=torch.float64) for count in (9, 6))
    y = torch.tensor([0, 1, 2, 3, 1, 2])
    start = [one.detach().clone() for one in network.parameters()]

    def loss_after(example, label, rate):
        for one, value in zip(network.parameters(), start, strict=True):
            one.data.copy_(value)
        gradient = torch.autograd.grad(F.cross_entropy(network(example[None]), label), [*network.parameters()])
        for one, step in zip(network.parameters(), gradient, strict=True):
            one.data.sub_(rate * step)
        with torch.no_grad():
            return float(F.cross_entropy(network(known), y))

    said = network(x).detach().softmax(1).numpy()
    moved = np.array(
        [
            [
                (loss_after(one, torch.tensor([c]), 1e-5) - loss_after(one, torch.tensor([c]), -1e-5)) / 2e-5
                for c in range(4)
            ]
            for one in x
        ]
    )
    for one, value in zip(network.parameters(), start, strict=True):
        one.data.copy_(value)
    np.testing.assert_allclose((said * moved).sum(1), 0, atol=1e-6)  # which is why the mean says nothing
    params = dict(network.named_parameters())
    loss = F.cross_entropy(network(known), y)
    gradient = dict(zip(params, torch.autograd.grad(loss, [*params.values()]), strict=True))
    steps = {name: 1e-6 * one for name, one in gradient.items()}
    up, down = (
        torch.func.functional_call(network, {name: one + sign * steps[name] for name, one in params.items()}, (x,))
        for sign in (1, -1)
    )
    slopes = ((up - down) / 2e-6).detach()
    picked = strategies.effect()(Asked(network(x).detach(), slopes=lambda: slopes), 9)
    scores = np.sqrt((said * np.square(moved)).sum(1))
    np.testing.assert_allclose(picked.score.numpy(), np.sort(scores)[::-1], rtol=1e-5)
    assert picked.examples.tolist() == np.argsort(-scores).tolist()


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_gives_at_most_what_there_is(name):
    logits = logits_of(3)
    asked = Asked(logits, lambda: [logits, -logits], lambda: logits, lambda: logits)
    picked = STRATEGIES[name]()(asked, 10)
    assert len(picked.examples.unique()) == len(picked.examples) == len(picked.score) <= 3


def test_a_name_that_is_none_is_refused():
    with pytest.raises(InputError, match="margin"):
        notation.build("margni", STRATEGIES, "by")
