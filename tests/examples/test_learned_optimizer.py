"""The learned optimiser: its update against a loop in numpy, both ways to train it against plain autograd."""

import functools

import learned_optimizer
import learned_optimizer_pes
import learned_problems
import learned_rule
import numpy as np
import pytest
import torch
from asserts import relative_error
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

import metapl as mp


def normal(seed, *shape):
    return mp.rng.normal(mp.key(seed), shape, torch.float64)


def theta():
    first = mp.tree.to(learned_rule.first(mp.key(0), hidden=3), torch.float64)
    return {**first, "out": 0.2 * normal(1, 3, 2), "bias": 0.1 * normal(2, 3)}


def by_hand(theta, grad, averages, time):
    """The update of one parameter and its averages, in torch without metapl."""
    decays = [0.5, 0.9, 0.99, 0.95]
    fresh = [d * a + (1.0 - d) * g for d, a, g in zip(decays, averages, [grad, grad, grad, grad * grad], strict=True)]
    size = (fresh[3] + 1e-12).sqrt()
    features = [grad / size, fresh[0] / size, fresh[1] / size, fresh[2] / size, torch.full_like(grad, time)]
    hidden = [
        torch.tanh(sum(f * theta["in"][i, j] for i, f in enumerate(features)) + theta["bias"][j]) for j in range(3)
    ]
    aside, longer = (sum(h * theta["out"][j, k] for j, h in enumerate(hidden)) for k in range(2))
    return -(theta["log lr"] + longer).exp() * (features[2] + aside), fresh


def trained_by_hand(theta, values, batches):
    """The losses of a training of a 3-4-2 network, recorded by autograd."""
    states, losses = [[torch.zeros_like(v)] * 4 for v in values], []
    for index, (x, y) in enumerate(zip(*batches, strict=True)):
        w1, b1, w2, b2 = values
        loss = F.cross_entropy(torch.relu(x @ w1.T + b1) @ w2.T + b2, y)
        grads = torch.autograd.grad(loss, values, create_graph=True)
        moved = [by_hand(theta, g, s, index / learned_rule.STEPS) for g, s in zip(grads, states, strict=True)]
        values, states = [v + u for v, (u, _) in zip(values, moved, strict=True)], [s for _, s in moved]
        losses.append(loss)
    return torch.stack(losses)


def tiny(steps=4):
    model = mp.from_module(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    starts = [mp.tree.to(model.init(key)[0], torch.float64) for key in mp.split(mp.key(3), 2)]
    batches = normal(4, 2, steps, 6, 3), torch.arange(12 * steps).view(2, steps, 6) % 2
    return model, mp.tree.map(lambda *leaves: torch.stack(leaves), *starts), batches


def test_the_gradient_by_unrolling_is_that_of_plain_autograd():
    model, starts, batches = tiny()
    value, found = learned_optimizer.meta_gradient(theta(), (None, None, model), (starts, batches))
    leaves = {name: leaf.requires_grad_() for name, leaf in theta().items()}
    losses = [
        trained_by_hand(leaves, [leaf[i].requires_grad_() for leaf in starts.values()], [part[i] for part in batches])
        for i in range(2)
    ]
    expected = torch.cat(losses).mean()
    grads = dict(zip(leaves, torch.autograd.grad(expected, list(leaves.values())), strict=True))
    assert relative_error(value, expected.detach()) < 1e-12
    assert relative_error(found, grads) < 1e-8


def quadratic(theta, carry):
    """The loss is a quadratic of the θ of all truncations, for which smoothing changes no gradient."""
    carry = 0.9 * carry + theta["a"] + theta["b"].sum() * 0.5
    return carry, 0.5 * carry.square().sum()


TRUNCATIONS, SIGMA = 5, 0.3


def at():
    return {"a": normal(6, 2), "b": normal(7, 3)}


def estimates(key, pairs):
    """What each truncation adds to the gradient."""
    sums = mp.tree.map(lambda leaf: leaf.new_zeros(pairs, *leaf.shape), at())
    carries, found = torch.ones(2 * pairs, 2, dtype=torch.float64), []
    for index in range(TRUNCATIONS):
        noise = mp.fold_in(key, index)
        grads, carries, sums = learned_optimizer_pes.pes(quadratic, at(), carries, sums, noise, sigma=SIGMA)
        found.append(grads)
    return found


def test_pes_is_unbiased_within_its_standard_error():
    """Of the whole training, by 400 estimates of 32 pairs each."""
    leaves = {name: leaf.requires_grad_() for name, leaf in at().items()}
    carry, total = torch.ones(2, dtype=torch.float64), 0.0
    for _ in range(TRUNCATIONS):
        carry, loss = quadratic(leaves, carry)
        total = total + loss
    exact = torch.cat(torch.autograd.grad(total, list(leaves.values())))
    keys = mp.fold_in(mp.key(8), torch.arange(400))
    found = torch.vmap(lambda key: functools.reduce(mp.tree.add, estimates(key, 32)))(keys)
    draws = torch.cat([found["a"], found["b"]], dim=1)
    error = draws.std(0) / len(draws) ** 0.5
    assert bool(((draws.mean(0) - exact).abs() < 3.0 * error).all())
    assert bool(3.0 * error.norm() < 0.1 * exact.norm())  # a bias of a tenth would be seen


def test_pes_is_a_loop_by_hand():
    pairs = 3
    found = estimates(mp.key(9), pairs)
    states = {1.0: np.ones((pairs, 2)), -1.0: np.ones((pairs, 2))}
    sums = {name: np.zeros((pairs, *leaf.shape)) for name, leaf in at().items()}
    for index in range(TRUNCATIONS):
        keyed = zip(mp.split(mp.fold_in(mp.key(9), index), 2), at().items(), strict=True)
        noise = {
            name: SIGMA * mp.rng.normal(k, (pairs, *leaf.shape), torch.float64).numpy() for k, (name, leaf) in keyed
        }
        expected = {name: np.zeros(leaf.shape) for name, leaf in at().items()}
        for pair in range(pairs):
            loss = {}
            for sign, state in states.items():
                a, b = (leaf.numpy() + sign * noise[name][pair] for name, leaf in at().items())
                state[pair] = 0.9 * state[pair] + a + 0.5 * b.sum()
                loss[sign] = 0.5 * np.sum(state[pair] ** 2)
            for name, total in sums.items():
                total[pair] += noise[name][pair]
                expected[name] += total[pair] * (loss[1.0] - loss[-1.0]) / (2.0 * SIGMA**2 * pairs)
        assert relative_error(found[index], mp.tree.map(torch.tensor, expected)) < 1e-10


def test_truncations_are_the_training():
    weights = learned_rule.first(mp.key(0))
    drawn = learned_problems.draw(learned_problems.SEEN, mp.key(1), 1)
    starts, batches = (mp.tree.map(lambda leaf: leaf[0], one) for one in drawn)
    carry, total = (starts, learned_rule.learned(weights).init(starts)), 0.0
    for first in range(0, learned_rule.STEPS, 20):
        some = mp.tree.map(lambda leaf, first=first: leaf[first : first + 20], batches)
        carry, loss = learned_optimizer_pes.truncation(weights, carry, some)
        total = total + loss
    model = learned_problems.SEEN[2]
    whole = learned_problems.mean_losses(learned_rule.learned(weights), model, *drawn, method="reverse")
    assert relative_error(total, whole[0]) < 1e-5


def test_trainings_differ_in_start_and_batches():
    starts, (x, _) = learned_problems.draw(learned_problems.SEEN, mp.key(1), 2)
    assert all(bool((leaf[0] != leaf[1]).any()) for leaf in starts.values())
    assert bool((x[0] != x[1]).any())


@pytest.mark.parametrize("program", [learned_optimizer.main, learned_optimizer_pes.main])
def test_the_programs_train_and_compare(program, monkeypatch, capsys):
    for module in (learned_rule, learned_problems, learned_optimizer_pes):
        monkeypatch.setattr(module, "STEPS", 10)
    monkeypatch.setattr(learned_problems, "RATES", torch.tensor([0.01]))
    program(1)
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split(":")[0] for line in lines] == ["digits, 64-32-10 (seen)", *learned_problems.UNSEEN]
