"""The exact meta-gradient: of one step without a Hessian, of several by replaying them."""

from __future__ import annotations

from collections.abc import Sequence

from metapl.core import autodiff, tree
from metapl.core.types import Claim, Estimator, Key, MetaGradient, Problem, PyTree, TrainState
from metapl.estimators import student
from metapl.estimators.route import Lesson, part_credit, require, watched_step
from metapl.estimators.route import step as taken


def exact(*, fraction: float = 1.0, method: str = "replay", route: str = "auto") -> Estimator:
    """Exact feedback through the learner's steps; through a single one without a double backward.

    The learner moves by update(g) with g = ∇_θ mean inner(θ, targets(lesson)). With v the exam's gradient after the
    step and u = (∂ update / ∂ g)ᵀ v, the chain rule gives

        d exam / d lesson = d⟨u, g(lesson)⟩ / d lesson
                          = d(D_u mean inner(θ, targets(lesson))) / d lesson,

    and D_u is the directional derivative along u. The lesson enters only at the loss, so there are two routes that pass
    no Hessian (`metapl.estimators.route`): forward, one forward-mode pass at the *old* parameters, and reverse, back
    through the recorded gradient. Left open, networks that train convolutions go forward, where that is cheaper, and
    all others, and those with an operation that has no forward mode, in reverse.
    For MPL's cross entropy and plain SGD it is −(lr / batch) Σ_i ∇ p_i · D_v(−log S(x_i)), D_v now along v.
    Several steps are replayed one by one on the way back, by `metapl.core.unrolling.unroll`.

    Exact for every differentiable optimiser, its warm state included, and for BatchNorm in training mode. For sampled
    labels the step is taken on the sample, and the feedback is the expectation over labels of the score-function
    gradient, given that v. What the network computes under `torch.no_grad` or detaches is a constant.

    Args:
        fraction: of the unlabelled batch, drawn at random, that gets feedback; the rest gets zeros. For one step only,
            and by the forward route. Below 1 it is unbiased where an example's loss does not depend on the others: with
            BatchNorm in training mode, or noise that is not metapl's dropout, it is refused. Lessons, targets and batch
            must have the examples along their first axis.
        method: of `metapl.core.unrolling.unroll` for several steps, "replay", "mixed" or "reverse": the same numbers.
        route: "auto", "forward" or "reverse", for one step: the same numbers up to rounding.

    Cost: 1 F + 1 B for the exam and, beyond the learner's own step, one jvp (3 F with its primal pass, times the
    fraction) forward, or 2 F and the memory of a recorded gradient in reverse. For K > 1 steps, one step more and a
    double backward a step (about 2 F + 2 B), and the memory of K learners and one step.

    Raises:
        ValueError: a fraction outside (0, 1], an approximate method, an unknown route, a fraction below 1 of several
            steps or in reverse.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"exact(fraction={fraction}) must lie in (0, 1]")
    if method not in ("replay", "mixed", "reverse"):
        raise ValueError(f"exact(method={method!r}) must be 'replay', 'mixed' or 'reverse', the exact ones")

    require(route)
    if fraction < 1.0 and route == "reverse":
        raise ValueError(f"exact(fraction={fraction}) goes by the forward route: leave route=reverse out")

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
        student.require_steps(thetas, inner_batches)
        if len(thetas) == 1:
            at = Lesson(problem, state, thetas[0], inner_batches[0], key)
            return (_one(at, outer_batch, route) if fraction == 1.0 else _part(at, outer_batch, fraction)), memory
        if fraction < 1.0:
            student.single(f"exact(fraction={fraction})", thetas, inner_batches)
        return student.examined(problem, thetas, state, inner_batches, outer_batch, key, method=method), memory

    claim: Claim = "exact" if fraction == 1.0 else "unbiased"
    cost = "1 F + 1 B (exam), 2 F to 3 F; K > 1: 3 F + 3 B a step"
    return Estimator(lambda: (), estimate, claim, ("soft", "sampled", "argmax"), cost, several=fraction == 1.0)


def _one(at: Lesson, outer_batch: PyTree, route: str) -> MetaGradient:
    step, back = taken(at, route)
    outer, _, u, scale = student.examine(at.problem, step, outer_batch)
    return MetaGradient((back(u),), step.state, outer, step.loss, scale, {"slope": tree.dot(u, step.grads)})


def _part(at: Lesson, outer_batch: PyTree, fraction: float) -> MetaGradient:
    step, watch = watched_step(at)
    watch.require_forward(f"exact(fraction={fraction})")
    outer, _, u, scale = student.examine(at.problem, step, outer_batch)
    cotangent = part_credit(at, u, step.losses, fraction, student.own_key(at.key))
    return MetaGradient((cotangent,), step.state, outer, step.loss, scale, {"slope": tree.dot(u, step.grads)})
