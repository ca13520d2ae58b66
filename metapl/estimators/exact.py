"""The exact meta-gradient: of one step by one forward-mode pass, of several by replaying them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from metapl import gradients, rng, tree
from metapl.estimators import student
from metapl.types import Claim, Estimator, Feedback, Key, Learner, Problem, PyTree


def exact(*, fraction: float = 1.0, method: str = "replay") -> Estimator:
    """Exact feedback through the learner's steps; through a single one without a double backward.

    The learner moves by update(g) with g = ∇_θ mean inner(θ, targets(lesson)). With v the exam's gradient after the
    step and u = (∂ update / ∂ g)ᵀ v, the chain rule gives

        d exam / d lesson = d⟨u, g(lesson)⟩ / d lesson
                          = d(D_u mean inner(θ, targets(lesson))) / d lesson,

    and D_u, the directional derivative along u, is one `torch.func.jvp` of the learner at its *old* parameters. The
    lesson enters only at the loss, so the last derivative touches nothing but arrays of the size of the logits.
    For MPL's cross entropy and plain SGD it is −(lr / batch) Σ_i ∇ p_i · D_v(−log S(x_i)), D_v now along v.
    Several steps are replayed one by one on the way back, by `metapl.unroll.unroll`.

    Exact for every differentiable optimiser, its warm state included, and for BatchNorm in training mode. For sampled
    labels the step is taken on the sample, and the feedback is the expectation over labels of the score-function
    gradient, given that v.

    Args:
        fraction: of the unlabelled batch, drawn at random, that gets feedback; the rest gets zeros. For one step only.
            Below 1 it is unbiased where the examples do not see each other, hence not with BatchNorm in training
            mode. Lessons, targets and batch must have the examples along their first axis.
        method: of `metapl.unroll.unroll` for several steps, "replay", "mixed" or "reverse": the same numbers.

    Cost: 1 F + 1 B for the exam and one jvp (about 2 F, times the fraction) beyond the learner's own step. For K > 1
    steps, one step more and a double backward a step (about 2 F + 2 B), and the memory of K learners and one step.

    Raises:
        ValueError: a fraction outside (0, 1], an approximate method, or a fraction below 1 of several steps.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"exact(fraction={fraction}) must lie in (0, 1]")
    if method not in ("replay", "mixed", "reverse"):
        raise ValueError(f"exact(method={method!r}) must be 'replay', 'mixed' or 'reverse', the exact ones")

    def estimate(
        problem: Problem,
        lessons: Sequence[PyTree],
        learner: Learner,
        batches: Sequence[PyTree],
        exam: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[Feedback, PyTree]:
        if len(lessons) == len(batches) == 1:
            return _one(problem, lessons[0], learner, batches[0], exam, key, fraction), memory
        if fraction < 1.0:
            student.single(f"exact(fraction={fraction})", lessons, batches)
        return student.examined(problem, lessons, learner, batches, exam, key, method=method), memory

    claim: Claim = "exact" if fraction == 1.0 else "unbiased"
    cost = "1 F + 1 B (exam), 1 jvp = 2 F; K > 1: 3 F + 3 B a step"
    return Estimator(lambda: (), estimate, claim, ("soft", "sampled", "argmax"), cost, several=fraction == 1.0)


def _one(
    problem: Problem, lesson: PyTree, learner: Learner, batch: PyTree, exam: PyTree, key: Key, fraction: float
) -> Feedback:
    _, step, outer, u, scale = student.sit(problem, lesson, learner, batch, exam, key)

    def change(lesson: PyTree) -> tuple[Tensor, tuple[()]]:
        targets, seen = problem.labels.teach(lesson, key), batch
        if fraction < 1.0:
            targets, seen = _part((targets, batch), len(tree.leaves(lesson)[0]), fraction, student.own_key(key))
        return student.slope(problem, learner, seen, u)(targets), ()

    slope, _, cotangent = gradients.value_and_grad(change, lesson)
    return Feedback((cotangent,), step.learner, outer, step.loss, scale, {"slope": slope})


def _part(examples: PyTree, count: int, fraction: float, key: Key) -> PyTree:
    """A random part of the examples. Each is in it equally often, so the mean over the part has the mean over all."""
    chosen = rng.permutation(key, count, key.device)[: max(1, round(fraction * count))]

    def part(leaf: Tensor) -> Tensor:
        if leaf.ndim and len(leaf) == count:
            return leaf.index_select(0, chosen.to(leaf.device))
        if leaf.ndim:
            raise ValueError(f"exact(fraction={fraction}): an array of {len(leaf)} rows in a batch of {count} examples")
        return leaf

    return tree.map(part, examples)
