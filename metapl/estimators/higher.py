"""The exact meta-gradient with the inner steps taken by the library `higher`: a second opinion."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metapl.core import autodiff, tree
from metapl.core.types import Estimator, Instance, MetaGradient, Optimizer, Params, PyTree, Rule, TrainState
from metapl.estimators import instances
from metapl.estimators.watch import Watch
from metapl.optim import OPTIMIZERS, schedule, to_torch
from metapl.registry.errors import InputError

RIGHT = ("sgd", "adagrad", "adadelta", "adamax", "rmsprop")
"""The rules that `higher` 0.2.1 steps as torch does, and differentiates rightly."""

WRONG = {"maximize": "it ignores maximize", "centered": "it gives NaN where a gradient is exactly zero"}
"""Switches of these rules, and what `higher` does with them; docs/results/peers.md has a script for each."""


def higher() -> Estimator:
    """The same steps taken by `higher` 0.2.1 (Grefenstette et al., 2019), recorded and differentiated backwards.

    It exists to be compared with: an implementation by other people. Optimisers that `higher` gets wrong or does not
    have are refused. Clipping goes through its gradient callback, a schedule through its override.

    Cost for K steps: a double backward a step (about 2 F + 2 B), and K graphs of memory, as `unroll`.

    Raises:
        InputError: an optimiser that `higher` has not, or has wrong. Not usable inside a `torch.func` transform.
    """
    cost = "1 F + 1 B (outer), 2 F + 2 B a step"
    return Estimator(lambda: (), _estimate, "exact", ("soft", "sampled", "argmax"), cost, accepts=_understood)


@autodiff.explained()
def _estimate(instance: Instance, memory: PyTree) -> tuple[MetaGradient, PyTree]:
    instances.require_steps(instance)
    instances.zero(instance.state)
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own about RMSprop, and of Python about its syntax
        thetas = [tree.map(lambda leaf: leaf.detach().requires_grad_(), theta) for theta in instance.thetas]
        taken = _steps(instance._replace(problem=Watch().watching(instance.problem), thetas=thetas))
        outer = instance.problem.outer(taken.state.params, taken.state.buffers, instance.outer_batch)
        leaves, structure = tree.flatten((thetas, taken.grads))
        cotangents = torch.autograd.grad(outer, leaves, materialize_grads=True)
    grads, u = tree.unflatten(list(cotangents), structure)
    lengths = [tree.norm(a) * tree.norm(tree.detach(b)) for a, b in zip(u, taken.grads, strict=True)]
    scale, loss = torch.stack(lengths).sum(), torch.stack(taken.losses).mean()
    return MetaGradient(tuple(grads), tree.detach(taken.state), outer.detach(), loss, scale, {}), memory


class _Taken(NamedTuple):
    """The train state after the inner steps, in the graph, with g and the mean loss of each."""

    state: TrainState
    grads: list[Params]
    losses: list[Tensor]


def _steps(instance: Instance) -> _Taken:
    problem, thetas, train_state, inner_batches, _, key = instance
    links, rule = _understood(problem.optimizer)
    chained = problem.optimizer.rule is not None and problem.optimizer.rule.name == "chain"
    state = train_state.opt_state[-1] if chained else train_state.opt_state
    params: Params = {name: nn.Parameter(value.detach().clone()) for name, value in train_state.params.items()}
    stepper = _stepper(rule, params, state)
    buffers, opt_state = train_state.buffers, train_state.opt_state
    grads: list[Params] = []
    losses: list[Tensor] = []
    keys = instances.target_keys(key, len(thetas))
    for index, (theta, batch, one) in enumerate(zip(thetas, inner_batches, keys, strict=True)):
        values, buffers = problem.inner(params, buffers, problem.targets.apply(theta, one), batch)

        def callback(found: Sequence[Tensor | None], at: Params = params) -> list[Tensor]:
            # A parameter without a part in the loss has the gradient zero, and still moves by its momentum.
            filled = [
                torch.zeros_like(p, requires_grad=True) if g is None else g
                for g, p in zip(found, at.values(), strict=True)
            ]
            autodiff.require_twice(filled)
            grads.append(dict(zip(at, filled, strict=True)))
            clipped = grads[-1]
            for link in links:
                clipped, _ = link.update(clipped, (), at)
            return list(clipped.values())

        rate = schedule.at(rule.options["lr"], state.step + index)
        after = stepper.step(values.mean(), list(params.values()), {"lr": [rate]}, callback)
        _, opt_state = problem.optimizer.update(tree.detach(grads[-1]), opt_state, tree.detach(params))
        params = dict(zip(params, after, strict=True))
        losses.append(values.detach().mean())
    return _Taken(TrainState(params, buffers, opt_state), grads, losses)


def _understood(optimizer: Optimizer) -> tuple[list[Optimizer], Rule]:
    """Clipping links, and the rule that steps; an `InputError` for what `higher` cannot be trusted with."""
    links = [optimizer]
    if optimizer.rule and optimizer.rule.name == "chain":
        links = list(optimizer.rule.options["links"])
    *clips, last = links
    name = last.rule.name if last.rule else "an optimiser without a `rule`"
    if last.rule is None or name not in RIGHT:
        raise InputError(f"higher has no {name}, or has it wrong: use unroll, or choose from {', '.join(RIGHT)}")
    for link in clips:
        if link.rule is None or not link.rule.name.startswith("clip_"):
            raise InputError("higher takes clipping links before an optimiser, and no others: use unroll")
    for switch, what in WRONG.items():
        if last.rule.options.get(switch):
            raise InputError(f"higher has {name} with {switch} wrong ({what}): use unroll, which is right")
    return clips, last.rule


def _stepper(rule: Rule, params: Params, state: Any) -> Any:
    """The differentiable optimiser of `higher`, from torch's with our hyperparameters and state."""
    import higher as library  # noqa: PLC0415 - a fifth of a second, for whoever does not use it

    named = {name: value for name, value in params.items() if isinstance(value, nn.Parameter)}
    constructor: Callable[..., Optimizer] = OPTIMIZERS[rule.name]
    theirs = to_torch(constructor(**rule.options), named, state)
    for held in theirs.state.values():
        if "step" in held:
            held["step"] = int(held["step"])  # torch's float32 count would cost nine digits in a bias correction
    # `override` is how it takes tensors, so that nothing of ours is cut from its graph.
    tensors = {key: [value] for key, value in rule.options.items() if isinstance(value, Tensor)}
    return library.optim.get_diff_optim(theirs, list(named.values()), override=tensors)
