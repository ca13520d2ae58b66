"""The exact meta-gradient through the last steps only."""

from __future__ import annotations

from collections.abc import Sequence

from metapl.core import autodiff
from metapl.core.types import Claim, Estimator, Key, MetaGradient, Problem, PyTree, TrainState
from metapl.estimators import student


def truncated(*, steps: int = 1) -> Estimator:
    """Exact feedback for the last so many lessons, and none for those before: truncated backpropagation.

    What is left out is how earlier lessons acted through the later steps. On an inner loss that is strongly convex
    near the learner it decays geometrically with their distance from the exam (Shaban et al., AISTATS 2019); with one
    step it is one-step, or Jacobian-free, differentiation (Bolte et al., NeurIPS 2023). The scale is that of the
    steps which are differentiated. With no more lessons than `steps` it is `exact`.

    Args:
        steps: n, how many.

    Cost: 1 F + 1 B for the exam, and 3 F + 3 B for each of the n steps beyond the learner's own.

    Raises:
        ValueError: less than one step.
    """
    if steps < 1:
        raise ValueError(f"truncated(steps={steps}) must be at least 1")

    @autodiff.explained()
    def estimate(
        problem: Problem,
        thetas: Sequence[PyTree],
        state: TrainState,
        inner_batches: Sequence[PyTree],
        outer_batch: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[MetaGradient, PyTree]:
        return student.examined(problem, thetas, state, inner_batches, outer_batch, key, last=steps), memory

    claim: Claim = "approximate"
    return Estimator(
        lambda: (), estimate, claim, ("soft", "sampled", "argmax"), "1 F + 1 B (exam), 3 F + 3 B a step kept"
    )
