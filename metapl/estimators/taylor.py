"""The score function with a difference of exam losses as its credit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metapl.core import autodiff, tree
from metapl.core.types import Claim, Estimator, Key, MetaGradient, Problem, PyTree, TrainState
from metapl.estimators import student


def taylor(*, sign: str = "paper") -> Estimator:
    """REINFORCE with the change of the exam loss in place of the paper's product of gradients.

    With ŷ drawn from the lessons, θ and θ′ the parameters before and after all steps,

        h = outer(θ) − outer(θ′),    feedback = −h ∇_lesson Σ_i log p(ŷ_i | lesson_i).

    Its expectation over labels is the gradient of the expected exam loss, for any optimiser and any number of steps;
    `exact` is that of the exam loss at the expected parameters. The two agree to first order in the learning rate. The
    variance is that of one scalar for a whole batch, and what momentum carries over from earlier steps adds to it.

    Args:
        sign: "paper", or "released" for new minus old as in the released code and in most ports: the exact opposite,
            kept so that its effect can be shown.

    Cost: 2 F + 1 B for the exam, the backward pass only for the scale.

    Raises:
        ValueError: an unknown sign, or labels without a log-probability.
    """
    if sign not in ("paper", "released"):
        raise ValueError(f"taylor(sign={sign!r}) must be 'paper' or 'released'")
    direction = 1.0 if sign == "paper" else -1.0

    def estimate(
        problem: Problem,
        thetas: Sequence[PyTree],
        state: TrainState,
        inner_batches: Sequence[PyTree],
        outer_batch: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[MetaGradient, PyTree]:
        log_prob = student.drawn("taylor()", problem)
        told = student.taught(problem, thetas, state, inner_batches, outer_batch, key)
        with torch.no_grad():  # the same buffers as for the new loss: only the parameters may differ
            before = problem.outer(state.params, told.state.buffers, outer_batch)
        h = before - told.outer
        drawn = student.targets(problem, thetas, key)

        def chance(thetas: list[PyTree]) -> tuple[Tensor, tuple[()]]:
            parts = [log_prob(one, label).sum() for one, label in zip(thetas, drawn, strict=True)]
            return torch.stack(parts).sum(), ()

        _, _, score = autodiff.value_and_grad(chance, list(thetas))
        feedback = tuple(tree.scale(-direction * h, one) for one in score)
        return told._replace(grads=feedback, info={"slope": -h}), memory

    claim: Claim = "approximate" if sign == "paper" else "wrong"
    return Estimator(lambda: (), estimate, claim, ("sampled", "argmax"), "2 F + 1 B (exam)")
