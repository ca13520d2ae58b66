"""The score function with a difference of outer losses as its credit."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from metapl.core import autodiff, tree
from metapl.core.types import Claim, Estimator, Instance, MetaGradient, PyTree
from metapl.estimators import instances, many_steps


def taylor(*, sign: str = "paper") -> Estimator:
    """REINFORCE with the change of the outer loss in place of the paper's product of gradients.

    With ŷ drawn from the θ of each step, w and w′ the parameters before and after all steps,

        h = outer(w) − outer(w′),    meta-gradient = −h ∇_θ Σ_i log p(ŷ_i | θ_i).

    Its expectation over labels is the gradient of the expected outer loss, for any optimiser and any number of steps;
    `exact` is that of the outer loss at the expected parameters. The two agree to first order in the learning rate. The
    variance is that of one scalar for a whole batch, and what momentum carries over from earlier steps adds to it.

    Args:
        sign: "paper", or "released" for new minus old as in the released code and in most ports: the exact opposite,
            kept so that its effect can be shown.

    Cost: 2 F + 1 B for the outer loss, the backward pass only for the scale.

    Raises:
        ValueError: an unknown sign, or labels without a log-probability.
    """
    if sign not in ("paper", "released"):
        raise ValueError(f"taylor(sign={sign!r}) must be 'paper' or 'released'")
    claim: Claim = "approximate" if sign == "paper" else "wrong"
    estimate = partial(_estimate, direction=1.0 if sign == "paper" else -1.0)
    return Estimator(lambda: (), estimate, claim, ("sampled", "argmax"), "2 F + 1 B (outer)")


def _estimate(instance: Instance, memory: PyTree, *, direction: float) -> tuple[MetaGradient, PyTree]:
    log_prob = instances.drawn("taylor()", instance.problem)
    found = many_steps.steps_and_outer(instance)
    with torch.no_grad():  # the same buffers as for the new loss: only the parameters may differ
        before = instance.problem.outer(instance.state.params, found.state.buffers, instance.outer_batch)
    h = before - found.outer
    drawn = instances.targets(instance)

    def log_likelihood(thetas: list[PyTree]) -> tuple[Tensor, tuple[()]]:
        parts = [log_prob(theta, targets).sum() for theta, targets in zip(thetas, drawn, strict=True)]
        return torch.stack(parts).sum(), ()

    _, _, score = autodiff.value_and_grad(log_likelihood, list(instance.thetas))
    grads = tuple(tree.scale(-direction * h, one) for one in score)
    return found._replace(grads=grads, info={"slope": -h}), memory
