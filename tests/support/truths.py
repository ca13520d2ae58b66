"""What feedback should be, found without metapl's derivatives: differences of torch's runs, and enumeration.

For labels drawn from θ the truth is d/dθ Σ_y P(y | θ) outer(y) = Σ_y outer(y) P(y) ∇ log P(y),
with outer(y) the outer loss after torch's own steps on the labels y.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from asserts import richardson
from by_torch import run_torch, soft_outer, tuples
from problems import OPTIMIZERS, Case, Rule, build, instance_of, make, pair
from torch import Tensor

from metapl import optim
from metapl.core.targets import SAMPLED
from metapl.core.types import TargetTransform

RULES: dict[str, Rule] = {
    **OPTIMIZERS,
    # The first step of these is nearly the sign of the gradient: with torch's eps = 1e-8 hardly anything is left to
    # differentiate, and the differences would have to be narrower than float64 allows.
    "adamw with room": pair(optim.adamw, torch.optim.AdamW, 0.05, betas=(0.8, 0.95), eps=0.1, weight_decay=0.1),
    "rmsprop with room": pair(optim.rmsprop, torch.optim.RMSprop, 0.05, alpha=0.8, eps=0.1, centered=True),
}


@functools.cache
def differences(network: str, rule: str, steps: int = 1, batch: int = 2, *, warm: bool = True) -> Any:
    """The gradient of the outer loss in θ of that case, soft labels, to about 10⁻¹⁰; torch alone takes the steps."""
    case = make(network, RULES[rule], steps=steps, batch=batch, warm=warm)
    found, error = richardson(lambda thetas: soft_outer(case, thetas), case.thetas, width=0.02, levels=3)
    assert error <= 3e-8, f"without their widest part the differences are {error:.1e} off: they are too coarse"
    return found


def forced(case: Case, targets: Sequence[Tensor]) -> Case:
    """The same case, in which these labels are drawn, one tensor a step; the derivative is that of `SAMPLED`."""

    def transform(theta: Tensor, _key: Tensor) -> Tensor:
        drawn = [target for target, one in zip(targets, case.thetas, strict=True) if torch.equal(one, theta)]
        expected = torch.softmax(theta, dim=-1)
        return drawn[0] + expected - expected.detach()

    return case._replace(problem=case.problem._replace(targets=TargetTransform(transform, SAMPLED.log_prob)))


def draws(case: Case) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Every assignment of labels to all examples of all steps, and its probability."""
    size = len(case.thetas[0])
    for labels in tuples(size * len(case.thetas)):
        targets = list(labels.split(size))
        chances = [
            (torch.softmax(theta, dim=-1) * target).sum(dim=-1).prod()
            for theta, target in zip(case.thetas, targets, strict=True)
        ]
        yield targets, torch.stack(chances).prod()


def expected_feedback(case: Case, text: str) -> list[Tensor]:
    """Σ_y P(y) feedback(y), one a step."""
    estimator, total = build(text), [torch.zeros_like(theta) for theta in case.thetas]
    for targets, chance in draws(case):
        found = estimator.estimate(instance_of(forced(case, targets)), estimator.init())[0].grads
        total = [before + chance * one for before, one in zip(total, found, strict=True)]
    return total


def expected_gradient(case: Case) -> list[Tensor]:
    """Σ_y outer(y) P(y) ∇ log P(y), one a step."""
    total = [torch.zeros_like(theta) for theta in case.thetas]
    for targets, chance in draws(case):
        outer = run_torch(case, targets)[0]
        scores = [target - torch.softmax(one, dim=-1) for target, one in zip(targets, case.thetas, strict=True)]
        total = [before + outer * chance * score for before, score in zip(total, scores, strict=True)]
    return total
