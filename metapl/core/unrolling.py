"""`unroll`: an inner loop as one differentiable function, the counterpart of a scan.

Examples:
    >>> import torch
    >>> from metapl.core.unrolling import unroll
    >>> def step(w, rate):  # a step of gradient descent on w² / 2
    ...     return w - rate * w
    >>> unroll(step, torch.tensor(1.0), [torch.tensor(0.5), torch.tensor(0.5)])
    tensor(0.2500)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metapl.core import closures, hvp, tree
from metapl.core.replaying import Step, replay
from metapl.core.torch_private import across_vmap
from metapl.core.types import PyTree
from metapl.registry.errors import InputError, unknown

RULES: dict[str, hvp.Rule | None] = {
    "replay": None,
    "mixed": hvp.forward_over_reverse,
    "difference": hvp.difference(),
    "stopped": hvp.stopped,
}
"""How the replaying methods differentiate the gradients that the steps take with `inside.gradient`."""

METHODS = ("reverse", *RULES)
"""The ways to go back through a step."""


def unroll(
    step: Step,
    carry: PyTree,
    inputs: Sequence[PyTree],
    *,
    method: str | hvp.Rule = "replay",
    checkpoints: bool = False,
    last: int | None = None,
) -> PyTree:
    """Apply `step` once for every input, and return the last carry.

    The result is differentiable in the carry, in every input and in what `step` closes over, by `torch.func` and by
    `.backward()` alike, and as often as `step` is. Tensors that require a gradient, or that a transform batches, are
    found in the closure of `step` and go in as arguments: through functions, optimisers, partials, containers and
    objects, but not through an `nn.Module`, whose parameters belong into the carry (see `metapl.core.closures`). `step`
    must be pure. Inside it take gradients with `metapl.core.inside.gradient`; those of `torch.func.grad` are right too,
    but leave nothing to choose for the last three methods and cost more. Forward mode (`torch.func.jvp` of the whole)
    needs "reverse".

    Args:
        step: the body of the loop.
        carry: what goes from step to step, such as parameters, buffers and optimiser state.
        inputs: what each step gets, all of the same structure.
        method: what is kept on the way there, and how the way back goes for K steps.
            "reverse": record every step. The memory of K steps. Inside of a `torch.vmap` whose result is differentiated
            it goes by "replay", since torch's own second derivatives of normalisation layers are wrong there.
            "replay": keep the K carries, and replay and record one step at a time. One more pass of every step.
            "mixed": as replay, and the inner gradients by forward mode over reverse mode: no graph of a gradient.
            "difference", or a rule such as `hvp.difference(1e-3)`: as replay, and the inner gradients by
            central differences. An approximation, O(radius²).
            "stopped": as replay, and the inner gradients as constants, as in first-order MAML. An approximation, O(lr).
        checkpoints: keep every √K-th carry only, and the carries between two of them when it is their turn: about
            2 √K carries in place of K, for one more pass of every step. Not for "reverse".
        last: differentiate the last so many steps only; all that comes before them counts as a constant.

    Raises:
        InputError: an unknown method; on the way back, a tensor that requires a gradient and that was not found.
        ValueError: `last` below 1, checkpoints of "reverse", which keeps everything, inputs that are no list, or leaves
            that are not tensors.
    """
    if isinstance(inputs, Tensor):
        raise ValueError("unroll(): inputs is a list with one entry a step: of a stacked tensor, list(inputs)")
    if method == "first-order":
        raise InputError("unroll(method='first-order') is now method='stopped': the same numbers by another name")
    if isinstance(method, str) and method not in METHODS:
        raise unknown("method of unroll()", method, METHODS)
    if method == "reverse" and checkpoints:
        raise ValueError("unroll(method='reverse') records every step: checkpoints need a method that replays")
    if last is not None and last < 1:
        raise ValueError(f"unroll(last={last}) must be at least 1")
    if last is not None and last < len(inputs):
        with torch.no_grad():
            carry = tree.detach(_reverse(step, carry, inputs[:-last]))
        inputs = inputs[-last:]
    if not inputs:
        return carry
    # A rule that is set around says what second derivatives are, and needs no replaying.
    if method == "reverse" and (hvp.current() or not across_vmap(_tensors(step, carry, inputs))):
        return _reverse(step, carry, inputs)
    rule = RULES.get(method) if isinstance(method, str) else method
    if not checkpoints:
        return replay(step, carry, inputs, rule)
    size = math.ceil(math.sqrt(len(inputs)))
    segments = [list(inputs[start : start + size]) for start in range(0, len(inputs), size)]
    return replay(partial(_segment, step, rule), carry, segments, None)


def _segment(step: Step, rule: hvp.Rule | None, carry: PyTree, inputs: Sequence[PyTree]) -> PyTree:
    """The steps between two checkpoints, as one step."""
    return replay(step, carry, inputs, rule)


def _reverse(step: Step, carry: PyTree, inputs: Sequence[PyTree]) -> PyTree:
    for given in inputs:
        carry = step(carry, given)
    return carry


def _tensors(step: Step, carry: PyTree, inputs: Sequence[PyTree]) -> list[Any]:
    held = [tensor for _, tensor in closures.captured(step)]
    return [leaf for leaf in tree.leaves((carry, list(inputs), held)) if isinstance(leaf, Tensor)]
