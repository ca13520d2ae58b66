"""The exact meta-gradient with its second derivatives by central differences, as in DARTS."""

from __future__ import annotations

from collections.abc import Sequence

from metapl.core import inside
from metapl.core.types import Estimator, Key, MetaGradient, Problem, PyTree, TrainState
from metapl.estimators import student


def difference(*, radius: float = 0.01) -> Estimator:
    """The mixed derivative of `exact` as a difference of two gradients (DARTS, Liu et al., ICLR 2019, equation 7).

    With u and the old parameters θ as in `exact`, and ε = radius / |u|,

        feedback = (∇_lesson mean inner(θ + εu) − ∇_lesson mean inner(θ − εu)) / 2ε.

    For smooth learners the error is O(radius²). Nothing is differentiated twice, which serves learners with layers
    whose double backward is missing or wrong. Several steps are replayed, each with its Hessian product by a
    difference too.

    DARTS takes u = −lr v of plain SGD; here u takes momentum, clipping and Adam along.

    Args:
        radius: |εu|, how far the learner is displaced. In single precision rounding asks for no less than about
            0.01, and for 0.1 with several steps, each of which magnifies the rounding of the one after it by
            1 / radius (docs/results/unroll.md).

    A difference of values goes through what the network detaches or computes under `torch.no_grad`, and past hooks and
    the backward of an `autograd.Function`: for such a network it approximates another gradient than `exact`.

    Cost: 1 F + 1 B for the exam and 2 F beyond the learner's own step; for K > 1, 3 F + 3 B a step.

    Raises:
        ValueError: a radius that is not positive.
    """
    if not radius > 0.0:
        raise ValueError(f"difference(radius={radius}) must be positive")
    product = inside.difference(radius)

    def estimate(
        problem: Problem,
        thetas: Sequence[PyTree],
        state: TrainState,
        inner_batches: Sequence[PyTree],
        outer_batch: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[MetaGradient, PyTree]:
        student.require_steps(thetas, inner_batches)
        if len(thetas) == 1:
            _, step, outer, u, scale = student.sit(problem, thetas[0], state, inner_batches[0], outer_batch, key)
            cotangent = student.displaced(problem, state, thetas[0], inner_batches[0], key, u, radius)
            return MetaGradient((cotangent,), step.state, outer, step.loss, scale, {}), memory
        return student.examined(problem, thetas, state, inner_batches, outer_batch, key, method=product), memory

    return Estimator(lambda: (), estimate, "approximate", ("soft", "sampled", "argmax"), "1 F + 1 B (exam), 2 F")
