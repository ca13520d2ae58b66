"""What the estimators share: the learner's steps and the exam, with the way back to the lessons or to the gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl.core import autodiff, inside, rng, tree
from metapl.core.types import Key, MetaGradient, Params, Problem, PyTree, TrainState
from metapl.core.unrolling import unroll
from metapl.estimators.watch import Watch
from metapl.registry.errors import InputError


def single(estimator: str, thetas: Sequence[PyTree], inner_batches: Sequence[PyTree]) -> tuple[PyTree, PyTree]:
    """The only lesson and batch, or a `ValueError` that says which estimator takes one step at a time."""
    require_steps(thetas, inner_batches)
    if len(thetas) != 1 or len(inner_batches) != 1:
        raise ValueError(f"{estimator} takes one inner step, got {len(thetas)}: use exact() for more")
    return thetas[0], inner_batches[0]


def require_steps(thetas: Sequence[PyTree], inner_batches: Sequence[PyTree]) -> None:
    """A `ValueError` unless lessons and batches are lists of as many steps."""
    for name, given in (("thetas", thetas), ("inner_batches", inner_batches)):
        if not isinstance(given, list | tuple):
            kind = type(given).__name__
            raise ValueError(f"{name} is a {kind}: it must be a list of one entry a step, [{name}] for one step")
    if len(thetas) != len(inner_batches) or not thetas:
        raise ValueError(
            f"{len(thetas)} thetas and {len(inner_batches)} inner batches: one of each is wanted for every step"
        )


def drawn(estimator: str, problem: Problem) -> Callable[[PyTree, PyTree], Tensor]:
    """The log-probability of the problem's labels, or a `ValueError` if they are not drawn."""
    if problem.targets.log_prob is None:
        raise ValueError(f"{estimator} needs labels that are drawn (sampled), these have no log-probability")
    return problem.targets.log_prob


def zero(state: TrainState) -> Tensor:
    """A real scalar zero as precise as the learner's parameters; an `InputError` if it has none."""
    first = next(iter(state.params.values()), None)
    if first is None:
        raise InputError("the learner has no parameters: there is nothing to train")
    return first.new_zeros((), dtype=first.dtype.to_real())


def label_keys(key: Key, count: int) -> list[Key]:
    """The key that draws the labels of each step, the same for every estimator."""
    return [key] if count == 1 else [rng.fold_in(key, index) for index in range(count)]


def own_key(key: Key) -> Key:
    """A key for an estimator's own randomness, apart from those that draw the labels."""
    return rng.fold_in(key, -1)


def targets(problem: Problem, thetas: Sequence[PyTree], key: Key) -> list[PyTree]:
    """What the learner is taught at each step, as data."""
    keys = label_keys(key, len(thetas))
    return [tree.detach(problem.targets.apply(theta, one)) for theta, one in zip(thetas, keys, strict=True)]


class Step(NamedTuple):
    """A step of the learner."""

    state: TrainState
    """The learner after the step."""
    grads: Params
    """g, the gradient of its mean loss before the step."""
    losses: Tensor
    """Its losses `[batch]` before the step."""
    pull: Callable[[Params], Params]
    """v ↦ u = (∂ update / ∂ g)ᵀ v: the exam's gradient with respect to g. For plain SGD u = −lr · v."""

    @property
    def loss(self) -> Tensor:
        """The mean loss before the step, a scalar."""
        return self.losses.mean()


def _mean_loss(problem: Problem, state: TrainState, batch: PyTree) -> Callable[..., tuple[Tensor, PyTree]]:
    def loss(params: Params, targets: PyTree) -> tuple[Tensor, PyTree]:
        with Watch():
            losses, buffers = problem.inner(params, state.buffers, targets, batch)
        return losses.mean(), (losses, buffers)

    return loss


def _moved(problem: Problem, state: TrainState, grads: Params, losses: Tensor, buffers: PyTree) -> Step:
    updates, opt_state, pull = autodiff.pullback(
        lambda g: problem.optimizer.update(g, state.opt_state, state.params), grads
    )
    params = tree.add(tree.detach(state.params), updates)
    return Step(TrainState(params, buffers, opt_state), grads, losses, pull)


@autodiff.explained()
def step(problem: Problem, state: TrainState, targets: PyTree, batch: PyTree) -> Step:
    """Take one step on the mean of the inner losses. Cost: 1 F + 1 B, and the graph of the (elementwise) update."""
    zero(state)
    loss = _mean_loss(problem, state, batch)
    _, (losses, buffers), grads = autodiff.value_and_grad(lambda params: loss(params, targets), state.params)
    return _moved(problem, state, grads, losses, buffers)


def recorded_gradient(
    problem: Problem, state: TrainState, theta: PyTree, batch: PyTree, key: Key
) -> tuple[tuple[Params, Tensor, PyTree], Callable[[Params], PyTree]]:
    """g, the losses `[batch]` and the buffers after the pass; and the way back from g to the lesson, to be taken once.

    Reverse mode over reverse mode. The lesson enters at the loss alone, so that the way back, u ↦ d⟨u, g⟩ / d lesson,
    passes each layer twice and no Hessian. Cost: 1 F + 1 B and the graph of a gradient; the way back 2 F.
    """
    zero(state)
    loss = _mean_loss(problem, state, batch)

    def gradient(theta: PyTree) -> tuple[Params, PyTree]:
        return inside.gradient(loss, state.params, problem.targets.apply(theta, key))

    grads, (losses, buffers), back = autodiff.pullback(gradient, theta)
    return (grads, losses, buffers), back


def recorded_step(
    problem: Problem, state: TrainState, theta: PyTree, batch: PyTree, key: Key
) -> tuple[Step, Callable[[Params], PyTree]]:
    """A step, and the way back from its gradient to the lesson; see `recorded_gradient`."""
    found, back = recorded_gradient(problem, state, theta, batch, key)
    return _moved(problem, state, *found), back


@autodiff.explained()
def exam_gradient(problem: Problem, state: TrainState, outer_batch: PyTree) -> tuple[Tensor, Params]:
    """The exam loss of a learner, and v, its gradient with respect to the learner's parameters. Cost: 1 F + 1 B."""

    def loss(params: Params) -> tuple[Tensor, tuple[()]]:
        with Watch():
            return problem.outer(params, state.buffers, outer_batch), ()

    value, _, grads = autodiff.value_and_grad(loss, state.params)
    return value, grads


class Examined(NamedTuple):
    """The exam after a step."""

    outer: Tensor
    """The exam loss."""
    v: Params
    """Its gradient with respect to the learner's parameters after the step."""
    u: Params
    """Its gradient with respect to the learner's gradient."""
    scale: Tensor
    """|u||g|."""


def examine(problem: Problem, step: Step, outer_batch: PyTree) -> Examined:
    """Sit the exam after a step and pull its gradient back to g. Cost: 1 F + 1 B."""
    outer, v = exam_gradient(problem, step.state, outer_batch)
    u = step.pull(v)
    return Examined(outer, v, u, tree.norm(u) * tree.norm(step.grads))


class Sitting(NamedTuple):
    """A step and the exam after it, as most one-step estimators need them."""

    targets: PyTree
    """What the learner was taught, detached."""
    step: Step
    outer: Tensor
    """The exam loss after the step."""
    u: Params
    """The exam's gradient with respect to the learner's gradient."""
    scale: Tensor
    """|u||g|."""


def sit(problem: Problem, theta: PyTree, state: TrainState, batch: PyTree, outer_batch: PyTree, key: Key) -> Sitting:
    """Teach the lesson, take the step, sit the exam and pull its gradient back to g. Cost: 2 F + 2 B."""
    taught = tree.detach(problem.targets.apply(theta, key))
    taken = step(problem, state, taught, batch)
    outer, _, u, scale = examine(problem, taken, outer_batch)
    return Sitting(taught, taken, outer, u, scale)


def slopes(problem: Problem, state: TrainState, batch: PyTree, u: Params) -> Callable[[PyTree], tuple[Tensor, Tensor]]:
    """`targets ↦ D_u inner`: the losses `[batch]` and their derivatives along u, by forward mode. Cost: 2 F."""

    def along(targets: PyTree) -> tuple[Tensor, Tensor]:
        def losses(params: Params) -> Tensor:
            return problem.inner(params, state.buffers, targets, batch)[0]

        found: tuple[Tensor, Tensor] = autodiff.jvp(losses, (state.params,), (u,))
        return found

    return along


def displaced(
    problem: Problem, state: TrainState, theta: PyTree, batch: PyTree, key: Key, u: Params, radius: float
) -> PyTree:
    """The derivative in the lesson of D_u mean inner, D_u by a central difference of width `radius`. Cost: 2 F."""
    leaves, structure = tree.flatten(state.params)

    def gradient(*at: Tensor) -> tuple[Tensor, ...]:
        def loss(theta: PyTree) -> tuple[Tensor, tuple[()]]:
            taught = problem.targets.apply(theta, key)
            return problem.inner(tree.unflatten(list(at), structure), state.buffers, taught, batch)[0].mean(), ()

        return tuple(tree.leaves(autodiff.value_and_grad(loss, theta)[2]))

    found = inside.difference(radius)(gradient, leaves, tree.leaves(u))
    return tree.unflatten(list(found), tree.flatten(theta)[1])


def course(
    problem: Problem,
    thetas: Sequence[PyTree],
    state: TrainState,
    inner_batches: Sequence[PyTree],
    key: Key,
    meter: Tensor | None = None,
    **how: Any,
) -> tuple[TrainState, Tensor]:
    """All steps, as one function that is differentiable in the lessons and in the learner.

    Args:
        problem: what the learner minimises, and how.
        lessons: one a step.
        learner: before the first step.
        batches: one a step.
        key: draws the labels.
        meter: a scalar zero whose cotangent will be Σ |u||g|; see `_Metered`. Not for forward mode.
        **how: the way back, as `metapl.core.unrolling.unroll` takes it.

    Returns:
        The learner after the last step, and its mean loss before each step, averaged over the steps.
    """
    require_steps(thetas, inner_batches)
    meters = () if meter is None else ([meter] * len(thetas),)
    given = list(zip(thetas, inner_batches, label_keys(key, len(thetas)), *meters, strict=True))

    def step(carry: tuple[TrainState, Tensor], given: tuple[Any, ...]) -> tuple[TrainState, Tensor]:
        (params, buffers, opt_state), total = carry
        theta, batch, key, *meter = given

        def loss(params: Params, targets: PyTree) -> tuple[Tensor, PyTree]:
            with Watch():
                losses, after = problem.inner(params, tree.detach(buffers), targets, batch)
            return losses.mean(), (losses.detach().mean(), after)

        grads, (value, after) = inside.gradient(loss, params, problem.targets.apply(theta, key))
        grads = _metered(grads, *meter) if meter else grads
        updates, opt_state = problem.optimizer.update(grads, opt_state, params)
        return TrainState(tree.add(params, updates), after, opt_state), total + value / len(thetas)

    start = zero(state)
    after, loss = unroll(step, (state, start), given, **how)
    return after._replace(buffers=tree.detach(after.buffers)), loss  # data, whatever the way back makes of a carry


@autodiff.explained()
def examined(
    problem: Problem,
    thetas: Sequence[PyTree],
    state: TrainState,
    inner_batches: Sequence[PyTree],
    outer_batch: PyTree,
    key: Key,
    **how: Any,
) -> MetaGradient:
    """All steps and the exam after them, differentiated in the lessons in the way that `unroll` is told."""

    def outer(told: tuple[list[PyTree], Tensor]) -> tuple[Tensor, PyTree]:
        thetas, meter = told
        after, loss = course(problem, thetas, state, inner_batches, key, meter, **how)
        return problem.outer(after.params, after.buffers, outer_batch), (after, loss)

    meter = zero(state)
    value, (after, loss), (cotangents, scale) = autodiff.value_and_grad(outer, (list(thetas), meter))
    return MetaGradient(tuple(cotangents), after, value, loss, scale, {})


def taught(
    problem: Problem,
    thetas: Sequence[PyTree],
    state: TrainState,
    inner_batches: Sequence[PyTree],
    outer_batch: PyTree,
    key: Key,
) -> MetaGradient:
    """All steps, the exam and the scale, for estimators that need no derivative for their feedback; it is left zero.

    The u of the scale is that of constant inner gradients (exact for one step). Cost: K (1 F + 1 B), 1 F + 1 B (exam).
    """
    with inside.differentiated_by(inside.dropped):
        return examined(problem, thetas, state, inner_batches, outer_batch, key, method="reverse")


def _metered(grads: Params, meter: Tensor) -> Params:
    leaves, structure = tree.flatten(grads)
    return tree.unflatten(list(_Metered.apply(meter, *leaves)), structure)


class _Metered(torch.autograd.Function):
    """The identity on a gradient g. A scalar that goes along unused gets the cotangent |u||g|, with u that of g.

    One scalar for all steps adds them up, so the scale needs no memory, where the u of K steps would.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(meter: Tensor, *grads: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG004 - it only takes a cotangent
        return tuple(grad.clone() for grad in grads)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ARG004
        ctx.save_for_backward(tree.norm(list(inputs[1:])))

    @staticmethod
    def backward(ctx: Any, *u: Tensor) -> tuple[Any, ...]:
        (length,) = ctx.saved_tensors
        return (tree.norm(list(u)) * length, *u)
