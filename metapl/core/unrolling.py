"""`scan` and `unroll`: an inner loop as one differentiable function.

Examples:
    >>> import torch
    >>> from metapl.core.unrolling import unroll
    >>> def step(w, rate):  # a step of gradient descent on w² / 2
    ...     return w - rate * w
    >>> unroll(step, torch.tensor(1.0), [torch.tensor(0.5), torch.tensor(0.5)])
    tensor(0.2500)

    `scan` also keeps something of every step, such as the loss before it, and takes inputs that are stacked:

    >>> from metapl.core.unrolling import scan
    >>> def measured(w, rate):
    ...     return step(w, rate), w**2 / 2
    >>> last, losses = scan(measured, torch.tensor(1.0), torch.tensor([0.5, 0.5]))
    >>> losses
    tensor([0.5000, 0.1250])
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metapl.core import closures, hvp, tree
from metapl.core.checkpoints import Checkpoints, plan
from metapl.core.loops import ScanStep, Step, paired
from metapl.core.replaying import replay
from metapl.core.stored import stored
from metapl.core.torch_private import across_vmap, inside_forward_mode
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


def scan(
    step: ScanStep,
    carry: PyTree,
    xs: PyTree,
    *,
    length: int | None = None,
    method: str | hvp.Rule = "replay",
    checkpoints: bool | str | Checkpoints = False,
    last: int | None = None,
) -> tuple[PyTree, PyTree]:
    """Apply `step(carry, x) -> (carry, y)` once for every x; the last carry, and every y, stacked along a first axis.

    Both are differentiable in the carry, in every input and in what `step` closes over, by `torch.func` and by
    `.backward()` alike, and as often as `step` is. Tensors that require a gradient, or that a transform batches, are
    found in the closure of `step` and go in as arguments: through functions, optimisers, partials, containers and
    objects, but not through an `nn.Module`, whose parameters belong into the carry (see `metapl.core.closures`). `step`
    must be pure. Inside it take gradients with `metapl.core.inside.gradient`; those of `torch.func.grad` are right too,
    but leave nothing to choose for the last three methods and cost more. Forward mode (`torch.func.jvp`, and `hessian`)
    goes through the exact methods, which record every step there; not through the approximate ones. So does
    `torch.compile`, where the compiler says what is kept, whatever `checkpoints` are.

    Args:
        step: the body of the loop.
        carry: what goes from step to step, such as parameters, buffers and optimiser state.
        xs: what each step gets. A list has one entry a step; any other tree is stacked, its leaves `[steps, ...]`. None
            where there is nothing to get.
        length: the number of steps; it can be left out unless `xs` is None.
        method: what is kept on the way there, and how the way back goes for K steps.
            "reverse": record every step. The memory of K steps. Inside of a `torch.vmap` whose result is differentiated
            it goes by "replay", since torch's own second derivatives of normalisation layers are wrong there.
            "replay": keep the K carries, and replay and record one step at a time. One more pass of every step.
            "mixed": as replay, and the inner gradients by forward mode over reverse mode: no graph of a gradient.
            "difference", or a rule such as `hvp.difference(1e-3)`: as replay, and the inner gradients by
            central differences. An approximation, O(radius²).
            "stopped": as replay, and the inner gradients as constants, as in first-order MAML. An approximation, O(lr).
        checkpoints: which carries are kept, for the methods that replay: False for all K; True or "sqrt" for 2 √K of
            them and one more pass of every step; "log" for 3 log₄ K and log₄ K passes; or a plan of
            `metapl.core.checkpoints`, such as `checkpoints.every(8)` and `checkpoints.disk(folder, every=100)`.
        last: differentiate the last so many steps only; all that comes before them counts as a constant.

    Raises:
        InputError: an unknown method or plan; on the way back, a tensor that requires a gradient and was not found.
        ValueError: `last` below 1, checkpoints of "reverse", which keeps everything, leaves that are not tensors, a
            step that returns no pair, inputs of different lengths, or outputs that differ in structure.
    """
    keep = plan(checkpoints)
    _require(method, checkpoints=bool(checkpoints), last=last)
    inputs = entries(xs, length)
    if not inputs:
        return carry, ()
    before: list[PyTree] = []
    if last is not None and last < len(inputs):
        with torch.no_grad():
            carry, before = tree.detach(_reverse(step, carry, inputs[:-last]))
        inputs = inputs[-last:]
    if _is_recorded(method, step, carry, inputs):
        carry, ys = _reverse(step, carry, inputs)
    else:
        carry, ys = _replayed(step, carry, inputs, method, keep)
    return carry, _stacked([*before, *ys])


def unroll(
    step: Step,
    carry: PyTree,
    inputs: Sequence[PyTree],
    *,
    method: str | hvp.Rule = "replay",
    checkpoints: bool | str | Checkpoints = False,
    last: int | None = None,
) -> PyTree:
    """Apply `step(carry, input) -> carry` once for every input, and return the last carry.

    It is `scan` for steps without outputs: the same derivatives, options and errors. `inputs` is a list.
    """
    if isinstance(inputs, Tensor):
        raise ValueError("unroll(): inputs is a list with one entry a step: of a stacked tensor, list(inputs), or scan")
    return scan(partial(_silent, step), carry, list(inputs), method=method, checkpoints=checkpoints, last=last)[0]


def _silent(step: Step, carry: PyTree, given: PyTree) -> tuple[PyTree, tuple[()]]:
    return step(carry, given), ()


def _is_recorded(method: str | hvp.Rule, step: ScanStep, carry: PyTree, inputs: Sequence[PyTree]) -> bool:
    """Whether the steps are recorded as they are taken, and nothing is replayed."""
    exact = method in ("reverse", "replay", "mixed")
    if torch.compiler.is_compiling():
        if not exact:
            raise InputError(f"torch.compile takes the exact methods of scan: method='replay', not {method!r}")
        return True
    # Forward mode keeps nothing of the steps behind it, so that there is nothing to replay.
    if method != "reverse" and not (exact and inside_forward_mode()):
        return False
    # A rule that is set around says what second derivatives are, and needs no replaying.
    return hvp.current() is not None or not across_vmap(_tensors(step, carry, inputs))


def _require(method: str | hvp.Rule, *, checkpoints: bool, last: int | None) -> None:
    if method == "first-order":
        raise InputError("unroll(method='first-order') is now method='stopped': the same numbers by another name")
    if isinstance(method, str) and method not in METHODS:
        raise unknown("method of unroll()", method, METHODS)
    if method == "reverse" and checkpoints:
        raise ValueError("unroll(method='reverse') records every step: checkpoints need a method that replays")
    if last is not None and last < 1:
        raise ValueError(f"unroll(last={last}) must be at least 1")


def entries(xs: PyTree, length: int | None = None, called: str = "scan(): xs") -> list[PyTree]:
    """The inputs of a loop as a list with one entry a step, from what `scan` takes; its `ValueError`s.

    Args:
        xs: the inputs.
        length: of the loop, if it is known.
        called: what the caller calls the inputs, for messages.
    """
    if xs is None:
        if length is None:
            raise ValueError(f"{called} is None, so that length must say how many steps there are")
        return [None] * length
    if isinstance(xs, list):
        found = xs
    else:
        leaves, structure = tree.flatten(xs)
        strange = next((leaf for leaf in leaves if not isinstance(leaf, Tensor) or leaf.ndim == 0), None)
        sizes = {leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim}
        if strange is not None or len(sizes) != 1:
            what = f"first axes of {sorted(sizes)}"
            if strange is not None:
                what = (
                    "a leaf without a first axis"
                    if isinstance(strange, Tensor)
                    else f"a {type(strange).__name__}, not a list"
                )
            raise ValueError(
                f"{called} is stacked along the steps, or a list with one entry a step: it has {what}; take list(…) of "
                "batches that come one by one"
            )
        found = [tree.unflatten(list(one), structure) for one in zip(*(leaf.unbind() for leaf in leaves), strict=True)]
    if length is not None and length != len(found):
        raise ValueError(f"{called} has {len(found)} steps, and length={length} was asked for")
    return found


def _stacked(ys: Sequence[PyTree]) -> PyTree:
    structures = [tree.flatten(one)[1] for one in ys]
    other = next((one for one in structures if one != structures[0]), None)
    if other is not None:
        raise ValueError(f"scan(): outputs differ in structure from step to step: {structures[0]} and {other}")
    return tree.map(lambda *leaves: torch.stack(leaves), *ys)


def _replayed(
    step: ScanStep, carry: PyTree, inputs: list[PyTree], method: str | hvp.Rule, keep: Checkpoints
) -> tuple[PyTree, list[PyTree]]:
    rule = RULES.get(method) if isinstance(method, str) else method
    return _level(step, rule, tuple(keep.sizes(len(inputs))), keep.folder, carry, inputs)


def _level(
    step: ScanStep,
    rule: hvp.Rule | None,
    sizes: Sequence[int],
    folder: Path | None,
    carry: PyTree,
    inputs: Sequence[PyTree],
) -> tuple[PyTree, list[PyTree]]:
    """All steps, in segments whose first carries are kept; a segment is one step to `replay`."""
    size, *within = sizes
    if size == 1 and folder is None:
        return replay(step, carry, inputs, rule)
    if within:  # the rule is for the level that records
        segment, rule = partial(_level, step, rule, within, None), None
    else:
        segment = partial(_reverse, step)
    segments = [list(inputs[start : start + size]) for start in range(0, len(inputs), size)]
    if folder is None:
        carry, ys = replay(segment, carry, segments, rule)
    else:
        carry, ys = stored(segment, carry, segments, folder)
    return carry, [one for part in ys for one in part]


def _reverse(step: ScanStep, carry: PyTree, inputs: Sequence[PyTree]) -> tuple[PyTree, list[PyTree]]:
    ys = []
    for given in inputs:
        carry, y = paired(step(carry, given))
        ys.append(y)
    return carry, ys


def _tensors(step: ScanStep, carry: PyTree, inputs: Sequence[PyTree]) -> list[Any]:
    held = [tensor for _, tensor in closures.captured(step)]
    return [leaf for leaf in tree.leaves((carry, list(inputs), held)) if isinstance(leaf, Tensor)]
