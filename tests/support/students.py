"""A small student made of any module, and what an estimator is called with."""

import torch
from torch import nn

from metapl import optim
from metapl.core import losses, rng, targets
from metapl.core.types import Instance, Problem, TrainState
from metapl.nn import functional


def f64(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Conv(nn.Module):
    """A convolution over examples `[batch, 4]`, to `[batch, 5]`."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 5, 4)

    def forward(self, x):
        return self.conv(x[:, None])[..., 0]


def model_of(build, seed=0):
    """A module as a function, with its parameters and buffers from a seed."""
    model = functional.from_module(build)
    return model, *model.init(rng.key(seed))


def given(module, rows=6, *, key=None):
    """What an estimator is called with, for a module from `[batch, 4]` to `[batch, 3]`."""
    model = functional.cast(functional.from_module(module), torch.float64)
    params, buffers = model.init(rng.key(0))

    def inner(params, buffers, targets, batch):
        logits, buffers = model.apply(params, buffers, batch, train=True, key=key)
        return losses.cross_entropy(logits, targets), buffers

    def outer(params, buffers, outer_batch):
        return losses.cross_entropy(model.apply(params, buffers, outer_batch[0], train=False)[0], outer_batch[1]).mean()

    problem = Problem(inner, outer, optim.sgd(0.3, momentum=0.9), targets.SOFT)
    state = TrainState(params, buffers, problem.optimizer.init(params))
    outer_batch = (f64(5, 4, seed=3), torch.arange(5) % 3)
    return Instance(problem, [f64(rows, 3, seed=1)], state, [f64(rows, 4, seed=2)], outer_batch, rng.key(1))


def feedback(estimator, at):
    return estimator.estimate(at, estimator.init())[0].grads[0]
