"""How meta-parameters θ that are logits become the labels of the inner loss: soft, sampled or argmax.

All three are differentiable in θ in one and the same way, as the expectation softmax(θ) is. A cross entropy is linear
in its targets, so for sampled labels this derivative is exactly the expectation, over the labels, of the score-function
gradient (given the gradient of the outer loss). For argmax labels it is the straight-through approximation: the true
derivative of an argmax is zero almost everywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key, TargetTransform


def _one_hot_log_prob(theta: Tensor, targets: Tensor) -> Tensor:
    return (targets.detach() * torch.log_softmax(theta, dim=-1)).sum(dim=-1)


def _hard(choose: Callable[[Tensor, Key], Tensor]) -> TargetTransform:
    def transform(theta: Tensor, key: Key) -> Tensor:
        classes = torch.arange(theta.shape[-1], device=theta.device)
        # A comparison, since torch's own one_hot looks at its data, which torch.vmap refuses.
        chosen = (choose(theta.detach(), key)[..., None] == classes).to(theta.dtype)
        expected = torch.softmax(theta, dim=-1)
        return chosen + (expected - expected.detach())  # the value of `chosen`, the derivative of `expected`

    return TargetTransform(transform, _one_hot_log_prob)


SOFT = TargetTransform(apply=lambda theta, _key: torch.softmax(theta, dim=-1), log_prob=None)
"""The distribution itself (the released code of Meta Pseudo Labels)."""

SAMPLED = _hard(lambda theta, key: rng.categorical(key, theta))
"""One class drawn from the distribution (the paper)."""

ARGMAX = _hard(lambda theta, _key: theta.argmax(dim=-1))
"""The most probable class (most ports)."""

TARGETS = {"soft": SOFT, "sampled": SAMPLED, "argmax": ARGMAX}
"""The transforms by name, as `Estimator.targets` names them."""
