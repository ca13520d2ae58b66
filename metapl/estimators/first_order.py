"""The paper's first-order meta-gradient: one scalar a batch, by the score function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import autodiff, rng, tree
from metapl.core.types import Claim, Estimator, Instance, MetaGradient, PyTree
from metapl.estimators import instances, one_step

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"sum": torch.sum, "mean": torch.mean}
"""How the score function is reduced over the batch."""


class Baseline(NamedTuple):
    """`mean`: the moving average of the cosine h / scale, a scalar."""

    mean: Tensor


def first_order(*, baseline: float = 0.99, reduction: str = "mean", draws: int = 1) -> Estimator:
    """The estimator of Meta Pseudo Labels (Pham et al., CVPR 2021, equation 12): REINFORCE on sampled labels.

    With ŷ drawn from θ, g the inner gradient on ŷ, v the gradient of the outer loss after the step and
    u = (∂ update / ∂ g)ᵀ v,

        h = −⟨u, g⟩  (= lr ⟨v, g⟩ for SGD),    meta-gradient = −h ∇_θ Σ_i log p(ŷ_i | θ_i).

    h > 0 says that the step lowered the outer loss to first order; descending on this meta-gradient then *raises* the
    probability of ŷ. Since one scalar is credited to the whole batch, the variance grows with the batch.

    The defaults are the paper's. With `baseline=0, reduction="sum"` it is unbiased: given v, and for an optimiser
    linear in g, its expectation over labels is the exact meta-gradient.

    Args:
        baseline: decay of a moving average of the cosine h / scale that is subtracted from it, 0 for none. The paper
            calls it crucial, the released code has 0.99; it starts from 0 here. It is kept in units of the cosine
            because the paper takes the cosine first; times the scale, which depends on the draw, it leaves the raw
            meta-gradient with a small bias.
        reduction: "mean" over the batch as in the paper, which is 1 / batch of the true size, or "sum".
        draws: of the labels, each with an inner step and an outer loss of its own, whose meta-gradients are averaged:
            the variance falls with their number. The state that comes back is that of the first.

    With argmax labels in place of sampled ones it is what most ports compute, and biased towards whatever θ already
    prefers. Soft labels are refused: Σ_c sg[p_c] log p_c has a gradient of exactly zero in the logits, which is the
    released code's meta-gradient.

    Cost: 1 F + 1 B for the outer loss beyond the inner step itself, and 2 F + 2 B for every further draw.

    Raises:
        ValueError: an unknown reduction, a baseline outside [0, 1), no draws, or labels without a log-probability.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"first_order(reduction={reduction!r}) must be 'sum' or 'mean'")
    if draws < 1:
        raise ValueError(f"first_order(draws={draws}) must be at least 1")
    if not 0.0 <= baseline < 1.0:
        raise ValueError(f"first_order(baseline={baseline}) must lie in [0, 1)")
    estimate = partial(_estimate, baseline=baseline, reduction=reduction, draws=draws)
    claim: Claim = "unbiased" if reduction == "sum" and not baseline else "approximate"
    return Estimator(_init, estimate, claim, ("sampled", "argmax"), "1 F + 1 B (outer)", several=False)


def _init() -> Baseline:
    return Baseline(torch.zeros(()))


def _estimate(
    instance: Instance, memory: Baseline, *, baseline: float, reduction: str, draws: int
) -> tuple[MetaGradient, Baseline]:
    theta, _ = instances.single("first_order()", instance)
    log_prob = instances.drawn("first_order()", instance.problem)
    key = instance.key
    taken: list[MetaGradient] = []
    for index in range(draws):
        one = key if index == 0 else rng.fold_in(instances.own_key(key), index)
        targets, step, (outer, _, u, scale) = one_step.step_and_outer(instance._replace(key=one))
        h = -tree.dot(u, step.grads)
        credit = h
        if baseline:
            cosine = tree.safe_divide(h, scale)
            credit = h - memory.mean * scale
            memory = Baseline(baseline * memory.mean + (1.0 - baseline) * cosine)
        likelihood = partial(_log_likelihood, log_prob, REDUCTIONS[reduction], targets)
        _, _, score = autodiff.value_and_grad(likelihood, theta)
        grad = tree.scale(-credit / draws, score)
        taken.append(MetaGradient((grad,), step.state, outer, step.loss, scale, {"slope": -h}))
    mean = functools.reduce(tree.add, (found.grads[0] for found in taken))
    return taken[0]._replace(grads=(mean,)), memory


def _log_likelihood(
    log_prob: Callable[[PyTree, PyTree], Tensor], reduce: Callable[[Tensor], Tensor], targets: PyTree, theta: PyTree
) -> tuple[Tensor, tuple[()]]:
    """The log-probability of the targets, over the batch."""
    return reduce(log_prob(theta, targets)), ()
