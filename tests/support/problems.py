"""Canonical bilevel problems in float64, built from the public interface of metapl.

Every activation is smooth, so that finite differences are valid. `by_torch.py` takes the same steps with torch alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import optim
from metapl.core import rng, tree
from metapl.core.losses import cross_entropy
from metapl.core.targets import TARGETS
from metapl.core.types import Estimator, Instance, MetaGradient, Model, Optimizer, Problem, TrainState
from metapl.estimators import ESTIMATORS
from metapl.nn import functional
from metapl.registry import notation

CLASSES = 3
WARM_STEPS = 3


class Tied(nn.Module):
    """Two layers that share one weight matrix, each with its own bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, CLASSES)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


def layernorm() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


def convnet() -> nn.Module:
    features = (nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten())
    return nn.Sequential(*features, nn.Linear(8, CLASSES)).double()


def linear() -> nn.Module:
    return nn.Linear(4, CLASSES).double()


class Variables(NamedTuple):
    """`dead`: the first input column is exactly zero in the inner batches, and not in the outer one.

    `squared`: it learns by half the squared distance from its outputs to the targets, not by the cross entropy.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (4,)
    outer_batch: str = "train"
    dead: bool = False
    squared: bool = False


NETWORKS = {
    "mlp": Variables(mlp),
    "dead-input": Variables(mlp, dead=True),
    "batchnorm": Variables(convnet, (1, 4, 4)),
    "batchnorm-eval": Variables(convnet, (1, 4, 4), outer_batch="eval"),
    "tied": Variables(lambda: Tied().double()),
    "layernorm": Variables(layernorm),
    "linear": Variables(linear),
    "linear-outer": Variables(mlp, outer_batch="linear"),
    "squared": Variables(linear, outer_batch="linear", squared=True),
}


class Rule(NamedTuple):
    """An optimiser of metapl and the same one of torch, which is clipped and scheduled by hand."""

    ours: Callable[[], Optimizer]
    theirs: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    max_norm: float = math.inf
    rate: Callable[[int], float] | None = None


def half_cosine(step: int) -> float:
    """`optim.cosine(0.3, total=20, warmup=2, wait=1)`, written out for steps 3 to 20."""
    return 0.3 * 0.5 * (1.0 + math.cos(math.pi * (step - 3) / 17))


def pair(
    ours: Callable[..., Optimizer], theirs: Callable[..., torch.optim.Optimizer], lr: float, **options: Any
) -> Rule:
    return Rule(lambda: ours(lr, **options), lambda parameters: theirs(parameters, lr, **options))


def sgd(lr: float, **options: Any) -> Rule:
    return pair(optim.sgd, torch.optim.SGD, lr, **options)


def _clipped() -> Optimizer:
    return optim.chain(optim.clip_by_global_norm(0.05), optim.sgd(0.3, momentum=0.9))


def _scheduled() -> Optimizer:
    return optim.sgd(optim.cosine(0.3, total=20, warmup=2, wait=1), momentum=0.9)


OPTIMIZERS = {
    "sgd": sgd(0.3),
    "momentum": sgd(0.2, momentum=0.9),
    "nesterov": sgd(0.2, momentum=0.9, weight_decay=0.05, nesterov=True),
    "adam": pair(optim.adam, torch.optim.Adam, 0.05, betas=(0.8, 0.95), eps=1e-3),
    "adamw": pair(optim.adamw, torch.optim.AdamW, 0.05, betas=(0.8, 0.95), weight_decay=0.1),
    "rmsprop": pair(
        optim.rmsprop, torch.optim.RMSprop, 0.02, alpha=0.9, eps=1e-3, momentum=0.8, centered=True, weight_decay=0.05
    ),
    "clipped": sgd(0.3, momentum=0.9)._replace(ours=_clipped, max_norm=0.05),
    "cosine": sgd(0.3, momentum=0.9)._replace(ours=_scheduled, rate=half_cosine),
}


class Case(NamedTuple):
    """A bilevel problem with everything that an estimator is called with."""

    problem: Problem
    state: TrainState
    thetas: list[Tensor]
    inner_batches: list[Tensor]
    outer_batch: Any
    key: Tensor
    network: Variables
    rule: Rule


def _inputs(network: Variables, count: int, generator: torch.Generator, *, learning: bool) -> Tensor:
    x = torch.randn(count, *network.shape, generator=generator, dtype=torch.float64)
    if network.dead and learning:
        x[:, 0] = 0.0
    return x


def problem_of(model: Model, network: Variables, optimizer: Optimizer, labels: str) -> Problem:
    outer_batch = network.outer_batch

    def inner(params, buffers, targets, x):
        logits, buffers = model.apply(params, buffers, x, train=True)
        losses = 0.5 * ((logits - targets) ** 2).sum(-1) if network.squared else cross_entropy(logits, targets)
        return losses, buffers

    def outer(params, buffers, batch):
        if outer_batch == "linear":
            return tree.dot(params, batch)
        x, y = batch
        return cross_entropy(model.apply(params, buffers, x, train=outer_batch == "train")[0], y).mean()

    return Problem(inner, outer, optimizer, TARGETS[labels])


def _warm(
    problem: Problem, state: TrainState, inner_batches: Sequence[Tensor], generator: torch.Generator
) -> TrainState:
    params, buffers, opt_state = state
    for x in inner_batches:
        targets = F.one_hot(torch.randint(CLASSES, (len(x),), generator=generator), CLASSES).to(x.dtype)
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        losses, buffers = problem.inner(leaves, buffers, targets, x)
        grads = dict(zip(leaves, torch.autograd.grad(losses.mean(), list(leaves.values())), strict=True))
        updates, opt_state = problem.optimizer.update(grads, opt_state, params)
        params = {name: params[name] + updates[name] for name in params}
    return TrainState(params, buffers, opt_state)


def make(
    network: str, rule: str | Rule = "sgd", labels: str = "soft", *, warm: bool = True, steps: int = 1, batch: int = 4
) -> Case:
    """A case of `steps` inner steps; `warm`: three steps have been taken before, on other data."""
    net, rule = NETWORKS[network], OPTIMIZERS[rule] if isinstance(rule, str) else rule
    generator = torch.Generator().manual_seed(20)
    model = functional.from_module(net.build)
    problem = problem_of(model, net, rule.ours(), labels)
    params, buffers = model.init(rng.key(3))
    state = TrainState(params, buffers, problem.optimizer.init(params))
    inner_batches = [_inputs(net, batch, generator, learning=True) for _ in range(steps)]
    thetas = [torch.randn(batch, CLASSES, generator=generator, dtype=torch.float64) for _ in range(steps)]
    if net.outer_batch == "linear":
        outer_batch = {k: torch.randn(v.shape, generator=generator, dtype=torch.float64) for k, v in params.items()}
    else:
        outer_batch = (_inputs(net, 5, generator, learning=False), torch.randint(CLASSES, (5,), generator=generator))
    if warm:
        others = [_inputs(net, 6, generator, learning=True) for _ in range(WARM_STEPS)]
        state = _warm(problem, state, others, generator)
    return Case(problem, state, thetas, inner_batches, outer_batch, rng.key(7), net, rule)


def instance_of(case: Case) -> Instance:
    """What an estimator is called with."""
    return Instance(case.problem, case.thetas, case.state, case.inner_batches, case.outer_batch, case.key)


def build(text: str) -> Estimator:
    """An estimator as the command line spells it, such as "exact:method=mixed"."""
    return notation.build(text, ESTIMATORS, "estimator")


def estimate(case: Case, text: str) -> MetaGradient:
    """The meta-gradient by that estimator."""
    estimator = build(text)
    return estimator.estimate(instance_of(case), estimator.init())[0]


def estimates(case: Case, text: str, count: int, together: int = 50_000) -> tuple[Tensor, ...]:
    """The meta-gradients of `count` keys, `[count, …]`, one tensor a step; `together` of them are made at a time."""
    estimator = build(text)
    instance, memory = instance_of(case), estimator.init()
    draw = torch.vmap(lambda key: estimator.estimate(instance._replace(key=key), memory)[0].grads, chunk_size=together)
    return draw(rng.fold_in(case.key, torch.arange(count)))


REFUSED = {"higher": ("adam", "adamw", "adamw with room", "rmsprop", "rmsprop with room")}
"""The rules that an estimator does not take."""


def target_keys(case: Case) -> list[Tensor]:
    """What draws the labels of each step: the key itself for one, keys folded from it for several."""
    return [case.key] if len(case.thetas) == 1 else [rng.fold_in(case.key, k) for k in range(len(case.thetas))]


def targets_of(case: Case) -> list[Tensor]:
    """The targets, one a step."""
    pairs = zip(case.thetas, target_keys(case), strict=True)
    return [case.problem.targets.apply(theta, key).detach() for theta, key in pairs]
