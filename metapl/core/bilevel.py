"""The hypergradient of a bilevel problem in one call, for a problem that is two losses and an optimiser.

Examples:
    >>> import torch
    >>> from metapl import optim
    >>> from metapl.core import bilevel
    >>> def inner(w, theta, batch):  # fit, with a penalty that is learned
    ...     return (w - batch) ** 2 + theta["penalty"] * w**2
    >>> def outer(w, theta):
    ...     return (w - 1.0) ** 2
    >>> found = bilevel.hypergradient(
    ...     inner, outer, lambda theta: optim.sgd(theta["lr"]),
    ...     {"penalty": torch.tensor(0.5), "lr": torch.tensor(0.1)}, torch.tensor(0.0), torch.tensor([2.0, 2.0]))
    >>> {name: round(float(grad), 3) for name, grad in found.grads.items()}
    {'penalty': 0.051, 'lr': -3.584}
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from metapl.core import autodiff, inside, torch_private, tree
from metapl.core.types import Optimizer, PyTree
from metapl.core.unrolling import entries, scan
from metapl.registry.errors import InputError

InnerLoss: TypeAlias = Callable[[PyTree, PyTree, PyTree], Any]
"""`inner_loss(params, theta, batch)`: a scalar, or a scalar and a tree of tensors, which is dropped."""

OuterLoss: TypeAlias = Callable[[PyTree, PyTree], Tensor]
"""`outer_loss(params, theta)`: a scalar; its data are in its closure."""

FromTheta: TypeAlias = Callable[[PyTree], Any]
"""Something that the meta-parameters make, such as the parameters that training begins with."""


_VALUES = (Tensor, dict, list, tuple, nn.Module, Iterator)
"""What is taken as it is; anything else makes it from θ. Not by `callable`, which `torch.compile` cannot ask a dict."""


class Hypergradient(NamedTuple):
    """What `hypergradient` returns."""

    grads: PyTree
    """d outer / dθ, shaped as θ."""
    value: Tensor
    """The outer loss after the inner steps, a scalar."""
    params: PyTree
    """The parameters after the inner steps."""


@autodiff.explained()
def hypergradient(
    inner_loss: InnerLoss,
    outer_loss: OuterLoss,
    optimizer: Optimizer | FromTheta,
    theta: PyTree,
    params: PyTree | FromTheta,
    batches: PyTree,
    **how: Any,
) -> Hypergradient:
    """d outer_loss(w_K(θ), θ) / dθ, where w_{k+1} = w_k + update(∇_w inner_loss(w_k, θ, batch_k)).

    θ may act on everything: on the inner loss, on the outer loss by itself, on the optimiser, and on where training
    begins. For the last two, give a function of θ in place of the optimiser or of the parameters. So

    - learned penalties or example weights are read by `inner_loss`;
    - learned rates are `lambda theta: optim.sgd(theta["lr"])`, which may be a tree with a rate for each parameter;
    - MAML (Finn et al., ICML 2017) is `lambda theta: theta` for the parameters.

    Args:
        inner_loss: `inner_loss(params, theta, batch)`: what the steps descend on, a scalar, or a scalar and a tree of
            tensors, which is dropped.
        outer_loss: `outer_loss(params, theta)`: what θ is judged by, a scalar; its data are in its closure.
        optimizer: the inner optimiser, or a function of θ that makes it.
        theta: one tree for all steps, or a list with one tree a step. A step and its optimiser get the tree of that
            step; the outer loss, and a function that makes the parameters, get `theta` as it is.
        params: before the first step: a tree, or a function of θ that makes it.
        batches: a list with one entry a step, or a tree that is stacked along the steps.
        **how: `method`, `checkpoints`, `last`, and `length` where there are no batches, as
            `metapl.core.unrolling.scan` takes them.

    Returns:
        Detached values: `grads`, shaped as θ, `value` and `params`. `objective` is the same as a function that stays
        differentiable.

    Raises:
        InputError: a list of θ that is not as long as the batches, a tuple of batches, leaves of θ or of the parameters
            that are no tensors, a θ of integers alone, or an optimiser that is no update rule of metapl.

    Warns:
        UserWarning: a leaf of θ whose gradient is exactly zero, as it is where a loss calls a module in place of its
            arguments. Within a transform of `torch.func` and a compiler nobody looks.

    Cost: K (1 F + 1 B), and as much again with a double backward a step on the way back; the memory of K times the
    parameters and the optimiser's state, and of one step.
    """
    tree.require_tensors(theta, "theta")
    _require_smooth(theta)

    def outer(theta: PyTree) -> tuple[Tensor, PyTree]:
        return objective(inner_loss, outer_loss, optimizer, theta, params, batches, **how)

    value, after, grads = autodiff.value_and_grad(outer, theta)
    if not torch.compiler.is_compiling() and not torch_private.inside_transform():
        _look_for_zeros(theta, grads)
    return Hypergradient(grads, value, after)


def _require_smooth(theta: PyTree) -> None:
    if not any(map(tree.differentiable, tree.leaves(theta))):
        raise InputError("theta has no leaf of floating-point numbers, and so no gradient: take theta.float()")


def _look_for_zeros(theta: PyTree, grads: PyTree) -> None:
    """Warn of what θ has that does not reach the outer loss, as far as can be seen."""
    for place, leaf, grad in zip(tree.paths(theta), tree.leaves(theta), tree.leaves(grads), strict=True):
        if tree.differentiable(leaf) and leaf.numel() and not grad.any():
            where = f"theta{place and f' at {place}'}"
            warnings.warn(
                f"{where} does not reach the outer loss: its gradient is exactly zero. Do the losses and the optimiser "
                "use their arguments, and no module or number that was made of it before?",
                stacklevel=4,
            )


def objective(
    inner_loss: InnerLoss,
    outer_loss: OuterLoss,
    optimizer: Optimizer | FromTheta,
    theta: PyTree,
    params: PyTree | FromTheta,
    batches: PyTree,
    **how: Any,
) -> tuple[Tensor, PyTree]:
    """The outer loss after the inner steps, and the parameters then; differentiable in θ, parameters and batches.

    The arguments of `hypergradient`. With `torch.vmap` over tasks and their mean it is the objective of MAML.
    """
    tree.require_tensors(theta, "theta")
    _require_clear(batches)
    given = entries(batches, how.pop("length", None), "batches")
    apart = isinstance(theta, list)
    if apart and len(theta) != len(given):
        raise InputError(
            f"theta is a list of {len(theta)} and there are {len(given)} batches: give one tree a step, or one for all "
            "that is not a list"
        )
    thetas = theta if apart else [theta] * len(given)
    start: PyTree = params if isinstance(params, _VALUES) else params(theta)
    tree.require_tensors(start, "params")
    state = _rule(optimizer, thetas[0] if thetas else theta).init(start)
    step = partial(_step, inner_loss, optimizer)
    if apart:
        (after, _), _ = scan(step, (start, state), list(zip(thetas, given, strict=True)), **how)
    else:
        shared = partial(_with, step, theta)  # held once by the step, where its cotangents are added up
        (after, _), _ = scan(shared, (start, state), given, **how)
    value = outer_loss(after, theta)
    if not isinstance(value, Tensor) or value.ndim:
        found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"outer_loss must return a scalar tensor, it returned {found}: take its mean")
    return value, after


def _rule(optimizer: Optimizer | FromTheta, theta: PyTree) -> Optimizer:
    kind = optimizer if isinstance(optimizer, type) else type(optimizer)
    if issubclass(kind, torch.optim.Optimizer):
        raise InputError(f"optimizer: torch.optim.{kind.__name__} is no function of tensors: take mp.sgd(0.1)")
    found: Any = optimizer if isinstance(optimizer, _VALUES) else optimizer(theta)
    if not hasattr(found, "update"):
        raise InputError(
            f"optimizer: {type(found).__name__} is no update rule: take mp.sgd(0.1), or lambda theta: mp.sgd(theta)"
        )
    rule: Optimizer = found
    return rule


def _require_clear(batches: PyTree) -> None:
    """Refuse a tuple of batches that look alike: it is read as one tree that is stacked along the steps."""
    if type(batches) is not tuple or len(batches) < 2 or not isinstance(batches[0], tuple | list | dict):
        return
    first, *others = (tree.map(lambda leaf: getattr(leaf, "shape", None), one) for one in batches)
    if all(other == first for other in others):
        raise InputError(
            f"batches is a tuple of {len(batches)} that look alike: give list(batches) for one a step, or a dict of "
            "what is stacked along the steps"
        )


def _with(step: Callable[..., Any], theta: PyTree, carry: PyTree, batch: PyTree) -> Any:
    return step(carry, (theta, batch))


def _step(
    inner_loss: InnerLoss, optimizer: Optimizer | FromTheta, carry: tuple[PyTree, PyTree], given: tuple[PyTree, PyTree]
) -> tuple[tuple[PyTree, PyTree], tuple[()]]:
    params, state = carry
    theta, batch = given
    grads, _ = inside.gradient(inner_loss, params, theta, batch)
    updates, state = _rule(optimizer, theta).update(grads, state, params)
    return (tree.add(params, updates), state), ()
