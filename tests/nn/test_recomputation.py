"""`torch.utils.checkpoint` in a model: masks, statistics, first and second derivatives, exact feedback."""

import pytest
import torch
from asserts import assert_close_tree
from students import model_of
from torch import nn
from torch.utils.checkpoint import checkpoint

from metapl import estimators, optim
from metapl.core import losses, rng, targets
from metapl.core.types import Instance, Problem, TrainState
from metapl.nn import functional

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- recomputation


class Drawn(nn.Module):
    """Dropout from torch's generator."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        return nn.functional.dropout(x, self.rate, self.training)


class Recomputed(nn.Module):
    def __init__(self, again, rate=0.5):
        super().__init__()
        self.again = again
        self.body = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(rate), nn.Dropout(rate))
        self.second = nn.Sequential(self.body[0], self.body[1], nn.Dropout(rate), Drawn(rate))
        self.last = nn.Linear(6, 2)

    def forward(self, x):
        if not self.again:
            return self.last(self.body(x))
        first = checkpoint(self.body, x, use_reentrant=False)
        return self.last(first) + self.last(checkpoint(lambda x: self.second(2.0 * x), x, use_reentrant=False))


def gradient(model, params, buffers, key):
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    logits, after = model.apply(leaves, buffers, X, train=True, key=key)
    kept = {name: value.clone() for name, value in after.items()}
    first = torch.autograd.grad(logits.square().sum(), list(leaves.values()), create_graph=True)
    second = torch.autograd.grad(sum((one**2).sum() for one in first), list(leaves.values()))
    assert_close_tree(after, kept, rtol=0.0)  # a second pass over a part does not write on what came back
    return logits.detach(), first, second


def test_what_is_run_again_on_the_way_back_is_what_was_run():
    """By differences in the parameters: masks and statistics of the second run are those of the first."""
    model, params, buffers = model_of(lambda: Recomputed(again=True).double())
    x = X.double()

    def value(p):
        return model.apply(p, buffers, x, train=True, key=rng.key(4))[0].square().sum()

    leaves = {name: one.clone().requires_grad_() for name, one in params.items()}
    grads = torch.autograd.grad(value(leaves), list(leaves.values()))
    along = {name: torch.cos(one) for name, one in params.items()}
    ahead, behind = ({n: p + sign * 1e-6 * along[n] for n, p in params.items()} for sign in (1, -1))
    slope = sum((g * along[name]).sum() for g, name in zip(grads, params, strict=True))
    assert_close_tree(slope, (value(ahead) - value(behind)) / 2e-6, rtol=1e-7)


def test_second_derivatives_of_what_is_run_again():
    again, params, buffers = model_of(lambda: Recomputed(again=True, rate=0.0))
    plain = functional.from_module(Twice)
    found, expected = (gradient(model, params, buffers, rng.key(0)) for model in (again, plain))
    assert_close_tree(found, expected, rtol=1e-5)


class Shared(nn.Module):
    """One dropout layer in two parts that are run again."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.drop = nn.Linear(3, 3), nn.Linear(3, 2), nn.Dropout(0.5)

    def forward(self, x):
        for layer in (self.first, self.second):
            x = checkpoint(lambda x, layer=layer: self.drop(layer(x)) ** 2, x, use_reentrant=False)
        return x


def test_a_dropout_layer_of_two_parts_cannot_be_run_again():
    model, params, buffers = model_of(Shared)
    leaves = {name: value.requires_grad_() for name, value in params.items()}
    logits, _ = model.apply(leaves, buffers, X, train=True, key=rng.key(0))
    with pytest.raises(RuntimeError, match="uses several times cannot be run again"):
        logits.sum().backward()


class Twice(Recomputed):
    """The same without recomputation."""

    def __init__(self):
        super().__init__(again=False, rate=0.0)

    def forward(self, x):
        return self.last(self.body(x)) + self.last(self.second(2.0 * x))


def test_exact_feedback_through_recomputation():
    model, params, buffers = model_of(lambda: Recomputed(again=True).double())

    def inner(p, b, targets, batch):
        logits, b = model.apply(p, b, batch[0], train=True, key=batch[1])
        return losses.cross_entropy(logits, targets), b

    def outer(p, b, outer_batch):
        return losses.cross_entropy(
            model.apply(p, b, outer_batch[0], train=True, key=rng.key(9))[0], outer_batch[1]
        ).mean()

    problem = Problem(inner, outer, optim.sgd(0.3, momentum=0.9), targets.SOFT)
    state = TrainState(params, buffers, problem.optimizer.init(params))
    theta, outer_batch = torch.randn(5, 2, dtype=torch.float64), (X.double(), torch.tensor([0, 1, 0, 1, 1]))
    for steps in (1, 2):
        inner_batches = [(X.double() + step, rng.key(step)) for step in range(steps)]

        def value(first, inner_batches=inner_batches):
            thetas = [first, *[theta] * (len(inner_batches) - 1)]
            at = Instance(problem, thetas, state, inner_batches, outer_batch, rng.key(1))
            return estimators.none().estimate(at, ())[0].outer

        instance = Instance(problem, [theta] * steps, state, inner_batches, outer_batch, rng.key(1))
        found = estimators.exact().estimate(instance, ())[0].grads
        along = torch.cos(theta)
        slope = (value(theta + 1e-5 * along) - value(theta - 1e-5 * along)) / 2e-5
        assert_close_tree((found[0] * along).sum(), slope, rtol=1e-6)
