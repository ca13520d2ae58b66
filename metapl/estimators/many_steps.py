"""Any number of inner steps and the outer loss after them, as one function that is differentiable in the θ of each."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from metapl.core import autodiff, hvp, inside, tree
from metapl.core.types import Instance, MetaGradient, Params, Problem, PyTree, TrainState
from metapl.core.unrolling import unroll
from metapl.estimators.instances import require_steps, target_keys, zero
from metapl.estimators.watch import watching_hooks


def unrolled(instance: Instance, meter: Tensor | None = None, **how: Any) -> tuple[TrainState, Tensor]:
    """All inner steps, as one function that is differentiable in the meta-parameters and in the train state.

    Args:
        instance: its outer batch is not used.
        meter: a scalar zero whose cotangent will be Σ |u||g|; see `_Metered`. Not for forward mode.
        **how: the way back, as `metapl.core.unrolling.unroll` takes it.

    Returns:
        The state after the last step, and the mean inner loss before each step, averaged over the steps.
    """
    require_steps(instance)
    count = len(instance.thetas)
    meters = () if meter is None else ([meter] * count,)
    given = list(zip(instance.thetas, instance.inner_batches, target_keys(instance.key, count), *meters, strict=True))
    start = (instance.state, zero(instance.state))
    after, loss = unroll(partial(_step, instance.problem, count), start, given, **how)
    return after._replace(buffers=tree.detach(after.buffers)), loss  # data, whatever the way back makes of a carry


def _step(
    problem: Problem, count: int, carry: tuple[TrainState, Tensor], given: tuple[Any, ...]
) -> tuple[TrainState, Tensor]:
    """One of `count` steps: the next train state, and the sum of the mean losses so far divided by the count."""
    (params, buffers, opt_state), total = carry
    theta, batch, key, *meter = given
    loss = partial(_mean_loss, problem, buffers, batch)
    grads, (value, after) = inside.gradient(loss, params, problem.targets.apply(theta, key))
    grads = _metered(grads, *meter) if meter else grads
    updates, opt_state = problem.optimizer.update(grads, opt_state, params)
    return TrainState(tree.add(params, updates), after, opt_state), total + value / count


def _mean_loss(
    problem: Problem, buffers: PyTree, batch: PyTree, params: Params, targets: PyTree
) -> tuple[Tensor, tuple[Tensor, PyTree]]:
    with watching_hooks():
        losses, after = problem.inner(params, tree.detach(buffers), targets, batch)
    return losses.mean(), (losses.detach().mean(), after)


@autodiff.explained()
def unrolled_gradient(instance: Instance, **how: Any) -> MetaGradient:
    """All inner steps and the outer loss after them, differentiated in the meta-parameters by a method of `unroll`."""

    def outer(at: tuple[list[PyTree], Tensor]) -> tuple[Tensor, tuple[TrainState, Tensor]]:
        thetas, meter = at
        after, loss = unrolled(instance._replace(thetas=thetas), meter, **how)
        return instance.problem.outer(after.params, after.buffers, instance.outer_batch), (after, loss)

    at = (list(instance.thetas), zero(instance.state))
    value, (after, loss), (grads, scale) = autodiff.value_and_grad(outer, at)
    return MetaGradient(tuple(grads), after, value, loss, scale, {})


def steps_and_outer(instance: Instance) -> MetaGradient:
    """All inner steps, the outer loss and the scale, with zero gradients: for estimators that put in their own.

    The u of the scale is that of constant inner gradients (exact for one step). Cost: K (1 F + 1 B), and 1 F + 1 B for
    the outer loss.
    """
    with hvp.using(hvp.stopped):
        return unrolled_gradient(instance, method="reverse")


def _metered(grads: Params, meter: Tensor) -> Params:
    leaves, structure = tree.flatten(grads)
    metered = _Metered.apply(meter, *leaves)  # type: ignore[no-untyped-call]
    found: Params = tree.unflatten(list(metered), structure)
    return found


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
