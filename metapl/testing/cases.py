"""Bilevel problems in float64 to check estimators on, and what their meta-gradient ought to be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from metapl import optim
from metapl.core import rng, tree
from metapl.core.losses import cross_entropy
from metapl.core.targets import TARGETS
from metapl.core.types import Instance, Optimizer, Params, Problem, PyTree, TrainState
from metapl.nn import functional

CLASSES = 3
"""Classes of every case."""


def finite_differences(fn: Callable[[PyTree], Tensor | float], at: PyTree, width: float = 1e-3) -> PyTree:
    """The gradient of the scalar `fn` at a tree of float64 tensors, by Richardson-extrapolated central differences.

    (4 D(h) − D(2h)) / 3 with D(h) = (fn(x + h) − fn(x − h)) / 2h: an error of O(h⁴), and four calls a number.
    """
    leaves, structure = tree.flatten(at)
    leaves = [leaf.detach().clone(memory_format=torch.contiguous_format) for leaf in leaves]
    grads = [torch.zeros_like(leaf) for leaf in leaves]

    def value(number: Tensor, offset: float) -> float:
        before = number.clone()
        number += offset
        result = float(fn(tree.unflatten([leaf.clone() for leaf in leaves], structure)))
        number.copy_(before)
        return result

    for leaf, grad in zip(leaves, grads, strict=True):
        for number, derivative in zip(leaf.view(-1), grad.view(-1), strict=True):
            near = (value(number, width) - value(number, -width)) / (2.0 * width)
            far = (value(number, 2.0 * width) - value(number, -2.0 * width)) / (4.0 * width)
            derivative.fill_((4.0 * near - far) / 3.0)
    return tree.unflatten(grads, structure)


def mlp() -> nn.Module:
    """A perceptron of 43 numbers, `[batch, 4]` to `[batch, 3]`; smooth, so that differences are valid."""
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


def convnet() -> nn.Module:
    """A convolution with BatchNorm, `[batch, 1, 4, 4]` to `[batch, 3]`."""
    features = (nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten())
    return nn.Sequential(*features, nn.Linear(8, CLASSES)).double()


RULES: dict[str, Callable[[], Optimizer]] = {
    "momentum": lambda: optim.sgd(0.2, momentum=0.9, nesterov=True, weight_decay=0.05),
    "adagrad": lambda: optim.adagrad(0.1, eps=1e-3),
    "adamw": lambda: optim.adamw(0.05, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1),
}
"""The inner optimisers by name."""
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (4,)),
    "convnet": (convnet, (1, 4, 4)),
}
"""The networks by name, with the shape of one example."""


def make(
    build: Callable[[], nn.Module], shape: tuple[int, ...], optimizer: Optimizer, labels: str, steps: int = 1
) -> Instance:
    """A state after two steps. The first input number is zero in all inner batches, so some gradients are too."""
    model = functional.from_module(build)
    draws = iter(rng.split(rng.key(11), 100))

    def normal(*size: int) -> Tensor:
        return rng.normal(next(draws), size, torch.float64)

    def inner(params: Params, buffers: PyTree, targets: PyTree, x: Tensor) -> tuple[Tensor, PyTree]:
        logits, buffers = model.apply(params, buffers, x, train=True)
        return cross_entropy(logits, targets), buffers

    def outer(params: Params, buffers: PyTree, outer_batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(model.apply(params, buffers, outer_batch[0], train=True)[0], outer_batch[1]).mean()

    def batch() -> Tensor:
        x = normal(2, *shape)
        x.flatten(1)[:, 0] = 0.0
        return x

    problem = Problem(inner, outer, optimizer, TARGETS[labels])
    params, buffers = model.init(rng.key(12))
    train_state = TrainState(params, buffers, optimizer.init(params))
    train_state = walk(
        problem, [torch.softmax(normal(2, CLASSES), -1) for _ in range(2)], train_state, [batch(), batch()]
    )[0]
    thetas, inner_batches = [normal(2, CLASSES) for _ in range(steps)], [batch() for _ in range(steps)]
    return Instance(
        problem, thetas, train_state, inner_batches, (normal(6, *shape), torch.arange(6) % CLASSES), rng.key(13)
    )


def gliding(labels: str) -> Instance:
    """A state whose momentum carries it far whatever θ is: where the gradient of the outer loss is taken matters."""
    case = make(mlp, (4,), optim.sgd(1e-3, momentum=0.9), labels)
    state = case.state.opt_state
    swing = {name: 1e3 * torch.sign(p) * (1.0 + p.abs()) for name, p in case.state.params.items()}
    return case._replace(state=case.state._replace(opt_state=state._replace(momentum=swing)))


def walk(
    problem: Problem, targets: Sequence[PyTree], train_state: TrainState, inner_batches: Sequence[PyTree]
) -> tuple[TrainState, Tensor]:
    """Plain steps by torch.autograd, and the mean of the losses before them."""
    params, buffers, opt_state = train_state
    losses = []
    for target, batch in zip(targets, inner_batches, strict=True):
        leaves = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
        values, buffers = problem.inner(leaves, buffers, target, batch)
        grads = torch.autograd.grad(values.mean(), list(leaves.values()))
        updates, opt_state = problem.optimizer.update(dict(zip(leaves, grads, strict=True)), opt_state, params)
        params = {name: p + updates[name] for name, p in params.items()}
        losses.append(values.detach().mean())
    return TrainState(params, tree.detach(buffers), opt_state), torch.stack(losses).mean()


def outer_after(case: Instance, targets: Sequence[PyTree]) -> Tensor:
    """The outer loss after plain steps on these targets."""
    train_state, _ = walk(case.problem, targets, case.state, case.inner_batches)
    return case.problem.outer(train_state.params, train_state.buffers, case.outer_batch).detach()


def truth(case: Instance, labels: str) -> Tensor:
    """The gradient of the outer loss in the meta-parameters; for drawn labels of its expectation, by enumeration."""
    if labels == "soft":
        return torch.cat(
            finite_differences(lambda at: outer_after(case, [torch.softmax(one, -1) for one in at]), case.thetas)
        )
    (theta,) = case.thetas
    p = torch.softmax(theta, -1)
    total = torch.zeros_like(theta)
    for drawn in itertools.product(range(CLASSES), repeat=len(theta)):
        y = torch.eye(CLASSES, dtype=p.dtype)[list(drawn)]
        total += outer_after(case, [y]) * (p * y).sum(-1).prod() * (y - p)
    return total
