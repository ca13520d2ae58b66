"""The exact meta-gradient through the last steps only."""

from __future__ import annotations

from functools import partial

from metapl.core import autodiff
from metapl.core.types import Estimator, Instance, MetaGradient, PyTree
from metapl.estimators import many_steps


def truncated(*, steps: int = 1) -> Estimator:
    """The exact meta-gradient for the last so many steps, and zero for those before: truncated backpropagation.

    What is left out is how the θ of earlier steps acted through the later steps. On an inner loss that is strongly
    convex near the parameters it decays geometrically with the distance from the last step (Shaban et al., AISTATS
    2019); with one step it is one-step, or Jacobian-free, differentiation (Bolte et al., NeurIPS 2023). The scale is
    that of the steps which are differentiated. With no more inner steps than `steps` it is `exact`.

    Args:
        steps: n, how many.

    Cost: 1 F + 1 B for the outer loss, and 3 F + 3 B for each of the n steps beyond the inner steps themselves.

    Raises:
        ValueError: less than one step.
    """
    if steps < 1:
        raise ValueError(f"truncated(steps={steps}) must be at least 1")
    targets, cost = ("soft", "sampled", "argmax"), "1 F + 1 B (outer), 3 F + 3 B a step kept"
    return Estimator(lambda: (), partial(_estimate, steps=steps), "approximate", targets, cost)


@autodiff.explained()
def _estimate(instance: Instance, memory: PyTree, *, steps: int) -> tuple[MetaGradient, PyTree]:
    return many_steps.unrolled_gradient(instance, last=steps), memory
