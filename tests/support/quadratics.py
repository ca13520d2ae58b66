"""Cases whose inner loss is quadratic, so that everything about them has a closed form.

With w all parameters, t = θ and x the batch, ℓ_i = ½ wᵀ A w − t_iᵀ x_i w. θ is the target itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl import optim
from metapl.core import rng
from metapl.core.types import Key, Optimizer, Params, Problem, TargetTransform, TrainState

SIZE, BATCH, ROWS = 5, 2, 3

AS_IT_IS = TargetTransform(lambda theta, _key: theta, None)

OUTER = {
    "linear": lambda w, outer_batch: w @ outer_batch,
    "square": lambda w, outer_batch: 0.5 * ((w - outer_batch) ** 2).sum(),
    "cubic": lambda w, outer_batch: ((w - outer_batch) ** 3).sum(),
}


class Quadratic(NamedTuple):
    """Called as the cases of `problems` are."""

    problem: Problem
    thetas: list[Tensor]
    state: TrainState
    inner_batches: list[Tensor]
    outer_batch: Tensor
    key: Key
    a: Tensor
    """A, `[size, size]`."""


def joined(params: Params) -> Tensor:
    """w."""
    return torch.cat([params["first"], params["second"]])


def parted(w: Tensor) -> Params:
    """Two parameters, since a tree of one would hide what is lost between them."""
    return {"first": w[:2].clone(), "second": w[2:].clone()}


def normal(seed: int, *shape: int) -> Tensor:
    return rng.normal(rng.key(seed), shape, torch.float64)


def quadratic(
    curvatures: Sequence[float],
    rule: Optimizer | None = None,
    *,
    steps: int = 1,
    outer_batch: str = "square",
    shared: bool = False,
    w: Tensor | None = None,
) -> Quadratic:
    """A with these eigenvalues; `shared`: all steps have one θ and one batch; w: where the parameters stand."""
    rule = rule or optim.sgd(0.1)
    basis = torch.linalg.qr(normal(1, SIZE, SIZE))[0]
    a = basis @ torch.diag(torch.tensor(curvatures, dtype=torch.float64)) @ basis.T

    def inner(params: Params, buffers: Any, targets: Tensor, x: Tensor) -> tuple[Tensor, Any]:
        w = joined(params)
        return 0.5 * w @ a @ w - (targets * (x @ w)).sum(-1), buffers

    def outer(params: Params, buffers: Any, outer_at: Tensor) -> Tensor:
        return OUTER[outer_batch](joined(params), outer_at)

    seeds = [0] * steps if shared else range(steps)
    thetas = [normal(10 + seed, BATCH, ROWS) for seed in seeds]
    inner_batches = [normal(30 + seed, BATCH, ROWS, SIZE) for seed in seeds]
    params = parted(normal(2, SIZE) if w is None else w)
    state = TrainState(params, {}, rule.init(params))
    return Quadratic(
        Problem(inner, outer, rule, AS_IT_IS), thetas, state, inner_batches, normal(3, SIZE), rng.key(7), a
    )


def pulls(case: Quadratic) -> Tensor:
    """The mean over examples of x_iᵀ t_i, one a step: what θ draws w towards, `[steps, size]`."""
    pairs = zip(case.thetas, case.inner_batches, strict=True)
    return torch.stack([torch.einsum("ir,irs->s", theta, x) / BATCH for theta, x in pairs])


def optimum(case: Quadratic) -> Quadratic:
    """The same case with the parameters where the mean loss over all steps is least."""
    w = torch.linalg.solve(case.a, pulls(case).mean(dim=0))
    return case._replace(state=case.state._replace(params=parted(w)))


def descended(case: Quadratic, lr: float) -> Tensor:
    """w after steps of gradient descent."""
    w = joined(case.state.params)
    for pull in pulls(case):
        w = w - lr * (case.a @ w - pull)
    return w


def felt(case: Quadratic, along: Sequence[Tensor]) -> list[Tensor]:
    """Along a change of the mean over examples of x_iᵀ t_i of each step: what it is per number of θ."""
    return [x @ one / BATCH for x, one in zip(case.inner_batches, along, strict=True)]
