"""Gradient clipping, as a link of a `chain`."""

from __future__ import annotations

import torch

from metapl.core import tree
from metapl.core.types import Optimizer, Params, PyTree, Rule


def clip_by_global_norm(max_norm: float) -> Optimizer:
    """grads · min(1, max_norm / (|grads| + 10⁻⁶)), equal to `torch.nn.utils.clip_grad_norm_`; differentiable."""

    def update(grads: Params, state: PyTree, params: Params) -> tuple[Params, PyTree]:  # noqa: ARG001
        return tree.scale((max_norm / (tree.norm(grads) + 1e-6)).clamp(max=1.0), grads), state

    return Optimizer(lambda _params: (), update, Rule("clip_by_global_norm", {"max_norm": max_norm}))


def clip_by_value(limit: float) -> Optimizer:
    """Each number clamped to ±limit, equal to `torch.nn.utils.clip_grad_value_`."""

    def update(grads: Params, state: PyTree, params: Params) -> tuple[Params, PyTree]:  # noqa: ARG001
        return tree.map(lambda grad: torch.clamp(grad, -limit, limit), grads), state

    return Optimizer(lambda _params: (), update, Rule("clip_by_value", {"limit": limit}))
