"""Hyperparameters in the state of a rule, where meta-parameters reach them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, PyTree
from metapl.registry.errors import InputError


class InjectedState(NamedTuple):
    """`hyperparameters`: tensors, or trees of them, by the name of the argument. `inner`: the state of the rule."""

    hyperparameters: dict[str, PyTree]
    inner: PyTree


def injected(constructor: Callable[..., Optimizer], **hyperparameters: Any) -> Optimizer:
    """A rule that keeps its hyperparameters in its state, where a step or a meta-gradient may change them.

    `injected(adam, lr=1e-3, betas=(0.9, 0.999))` steps as `adam(lr=1e-3, betas=(0.9, 0.999))` does. Numbers become
    float64 tensors, dicts shaped as the parameters are a value for each of them, and all of them are carried unchanged
    from step to step: `state._replace(hyperparameters={...})` sets others. Switches and schedules stay outside of the
    state.

    Raises:
        InputError: at a step, hyperparameters of another structure than at first.
    """
    kept = {name: _tensors(value) for name, value in hyperparameters.items() if _is_number(value)}
    fixed = {name: value for name, value in hyperparameters.items() if name not in kept}
    structure = tree.flatten(kept)[1]

    def matches(given: PyTree) -> bool:
        try:
            return all(isinstance(leaf, Tensor) for leaf in structure.flatten_up_to(given))
        except ValueError:
            return False

    def init(params: PyTree) -> InjectedState:
        return InjectedState(kept, constructor(**kept, **fixed).init(params))

    def update(grads: PyTree, state: InjectedState, params: PyTree) -> tuple[PyTree, InjectedState]:
        if not matches(state.hyperparameters):
            found, first = tree.sketch(state.hyperparameters), tree.sketch(kept)
            raise InputError(f"injected: the state has hyperparameters {found}, it began with {first}")
        rule = constructor(**state.hyperparameters, **fixed)
        updates, inner = rule.update(grads, state.inner, params)
        return updates, InjectedState(state.hyperparameters, inner)

    return Optimizer(init, update)


def _is_number(value: Any) -> bool:
    """Numbers, tensors and trees of them; True and False are switches."""
    return all(isinstance(leaf, float | Tensor) for leaf in tree.leaves(value))


def _tensors(value: PyTree) -> PyTree:
    return tree.map(lambda leaf: leaf if isinstance(leaf, Tensor) else torch.tensor(leaf, dtype=torch.float64), value)
