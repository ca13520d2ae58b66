"""What the one-step estimators share: the learner's own step, taken once, with the way back through the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from metapl import gradients, tree
from metapl.types import Key, Learner, Params, Problem, PyTree


class Step(NamedTuple):
    """A step of the learner."""

    learner: Learner
    """The learner after the step."""
    grads: Params
    """g, the gradient of its mean loss before the step."""
    loss: Tensor
    """Its mean loss before the step, a scalar."""
    pull: Callable[[Params], Params]
    """v ↦ u = (∂ update / ∂ g)ᵀ v: the exam's gradient with respect to g. For plain SGD u = −lr · v."""


def single(estimator: str, lessons: Sequence[PyTree], batches: Sequence[PyTree]) -> tuple[PyTree, PyTree]:
    """The only lesson and batch, or a `ValueError` that says which estimator takes one step at a time."""
    if len(lessons) != 1 or len(batches) != 1:
        raise ValueError(f"{estimator} takes one inner step, got {len(lessons)} lessons: use exact() for more")
    return lessons[0], batches[0]


def drawn(estimator: str, problem: Problem) -> Callable[[PyTree, PyTree], Tensor]:
    """The log-probability of the problem's labels, or a `ValueError` if they are not drawn."""
    if problem.labels.log_prob is None:
        raise ValueError(f"{estimator} needs labels that are drawn (sampled), these have no log-probability")
    return problem.labels.log_prob


def step(problem: Problem, learner: Learner, targets: PyTree, batch: PyTree) -> Step:
    """Take one step on the mean of the inner losses. Cost: 1 F + 1 B, and the graph of the (elementwise) update."""

    def loss(params: Params) -> tuple[Tensor, PyTree]:
        losses, buffers = problem.inner(params, learner.buffers, targets, batch)
        return losses.mean(), buffers

    value, buffers, grads = gradients.value_and_grad(loss, learner.params)
    updates, opt_state, pull = gradients.pullback(
        lambda g: problem.optimizer.update(g, learner.opt_state, learner.params), grads
    )
    return Step(Learner(tree.add(learner.params, updates), buffers, opt_state), grads, value, pull)


def exam_gradient(problem: Problem, learner: Learner, exam: PyTree) -> tuple[Tensor, Params]:
    """The exam loss of a learner, and v, its gradient with respect to the learner's parameters. Cost: 1 F + 1 B."""
    value, _, grads = gradients.value_and_grad(
        lambda params: (problem.outer(params, learner.buffers, exam), ()), learner.params
    )
    return value, grads


class Sitting(NamedTuple):
    """A step and the exam after it, as every one-step estimator needs them."""

    targets: PyTree
    """What the learner was taught, detached."""
    step: Step
    outer: Tensor
    """The exam loss after the step."""
    u: Params
    """The exam's gradient with respect to the learner's gradient."""
    scale: Tensor
    """|u||g|."""


def sit(problem: Problem, lesson: PyTree, learner: Learner, batch: PyTree, exam: PyTree, key: Key) -> Sitting:
    """Teach the lesson, take the step, sit the exam and pull its gradient back to g. Cost: 2 F + 2 B."""
    targets = tree.detach(problem.labels.teach(lesson, key))
    taken = step(problem, learner, targets, batch)
    outer, v = exam_gradient(problem, taken.learner, exam)
    u = taken.pull(v)
    return Sitting(targets, taken, outer, u, tree.norm(u) * tree.norm(taken.grads))
