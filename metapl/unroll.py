"""`unroll`: an inner loop as one differentiable function, the counterpart of a scan.

Examples:
    >>> import torch
    >>> from metapl.unroll import unroll
    >>> def step(w, rate):  # a step of gradient descent on w² / 2
    ...     return w - rate * w
    >>> unroll(step, torch.tensor(1.0), [torch.tensor(0.5), torch.tensor(0.5)])
    tensor(0.2500)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from metapl import tree
from metapl.errors import unknown
from metapl.types import PyTree

T = TypeVar("T", Tensor, Tensor | None)

Step = Callable[[PyTree, PyTree], PyTree]
"""`step(carry, input)`: the next carry, of the same structure."""


def unroll(step: Step, carry: PyTree, inputs: Sequence[PyTree], *, method: str = "replay") -> PyTree:
    """Apply `step` once for every input, and return the last carry.

    The result is differentiable in the carry and in every input, by `torch.func` and by `.backward()` alike, and as
    often as `step` is. `step` must be a pure function of its arguments: what it closes over is a constant, so that
    a tensor to be differentiated belongs into the carry or the inputs. Inside it take gradients with `torch.func.grad`.

    Args:
        step: the body of the loop.
        carry: what goes from step to step, such as parameters, buffers and optimiser state.
        inputs: what each step gets, all of the same structure.
        method: "replay" keeps the carries only and replays each step on the way back: one more forward pass of every
            step, and the memory of K carries and one step. "reverse" records every step: the memory of K steps.

    Raises:
        InputError: an unknown method.
    """
    if method not in METHODS:
        raise unknown("method of unroll()", method, METHODS)
    return METHODS[method](step, carry, inputs) if len(inputs) else carry


def _reverse(step: Step, carry: PyTree, inputs: Sequence[PyTree]) -> PyTree:
    for given in inputs:
        carry = step(carry, given)
    return carry


def _replay(step: Step, carry: PyTree, inputs: Sequence[PyTree]) -> PyTree:
    first, structure = tree.flatten(carry)
    rest, input_structure = tree.flatten(list(inputs))
    loop = _Loop(step, structure, input_structure, len(first))
    trail = _Replay.apply(loop, *first, *rest)
    return tree.unflatten(list(trail[-len(first) :]), structure)


METHODS = {"replay": _replay, "reverse": _reverse}


class _Loop(NamedTuple):
    """What `_Replay` needs beside tensors."""

    step: Step
    structure: Any
    input_structure: Any
    size: int

    def carries(self, leaves: Sequence[T]) -> list[list[T]]:
        """The leaves of every carry, from those of all carries in a row."""
        return [list(leaves[start : start + self.size]) for start in range(0, len(leaves), self.size)]

    def flat(self, carry: Sequence[Tensor], given: PyTree) -> list[Tensor]:
        """One step, from the leaves of a carry to those of the next."""
        after, structure = tree.flatten(self.step(tree.unflatten(list(carry), self.structure), given))
        if structure != self.structure:
            raise ValueError(f"unroll(): step turned a carry of structure {self.structure} into {structure}")
        return after


class _Replay(torch.autograd.Function):
    """All carries from the first and the inputs. Every carry is an output, so that higher derivatives see it too."""

    @staticmethod
    def forward(loop: _Loop, *leaves: Tensor) -> tuple[Tensor, ...]:
        carry = list(leaves[: loop.size])
        trail: list[Tensor] = []
        for given in tree.unflatten(list(leaves[loop.size :]), loop.input_structure):
            # A copy where the step passes a tensor on: autograd wants outputs that are not inputs.
            passed = {id(leaf) for leaf in (*carry, *tree.leaves(given))}
            carry = [leaf.clone() if id(leaf) in passed else leaf for leaf in loop.flat(carry, given)]
            trail += carry
        return tuple(trail)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.loop = inputs[0]
        ctx.mark_non_differentiable(*(leaf for leaf in output if not leaf.is_floating_point()))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:], *output[: -ctx.loop.size])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        loop: _Loop = ctx.loop
        saved = list(ctx.saved_tensors)
        count = loop.input_structure.num_leaves
        inputs = tree.unflatten(saved[loop.size : loop.size + count], loop.input_structure)
        carries = loop.carries([*saved[: loop.size], *saved[loop.size + count :]])
        arriving = loop.carries(list(cotangents))
        needed = ctx.needs_input_grad[1 + loop.size :]
        width = len(needed) // len(inputs)
        back: list[Tensor | None] = [None] * loop.size
        to_inputs: list[list[Tensor | None]] = []
        for index in reversed(range(len(inputs))):
            told = [_sum(a, b) for a, b in zip(back, arriving[index], strict=True)]
            wanted = [*(leaf.is_floating_point() for leaf in carries[index]), *needed[index * width :][:width]]
            back, to_input = _pull(loop, carries[index], inputs[index], told, wanted)
            to_inputs.append(to_input)
        return (None, *back, *(grad for grads in reversed(to_inputs) for grad in grads))


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _pull(
    loop: _Loop, carry: list[Tensor], given: PyTree, cotangents: Sequence[Tensor | None], wanted: Sequence[bool]
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """One step replayed, and its carry's cotangents pulled back to the wanted leaves of its arguments."""
    given_leaves, structure = tree.flatten(given)
    primals = [*carry, *given_leaves]
    moving = [index for index, want in enumerate(wanted) if want]
    told = [index for index, cotangent in enumerate(cotangents) if cotangent is not None]

    def replayed(*moved: Tensor) -> tuple[Tensor, ...]:
        full = list(primals)
        for index, leaf in zip(moving, moved, strict=True):
            full[index] = leaf
        after = loop.flat(full[: loop.size], tree.unflatten(full[loop.size :], structure))
        return tuple(after[index] for index in told)

    grads: list[Tensor | None] = [None] * len(primals)
    if told:
        pull = torch.func.vjp(replayed, *(primals[index] for index in moving))[1]
        for index, grad in zip(moving, pull(tuple(cotangents[index] for index in told)), strict=True):
            grads[index] = grad
    return grads[: loop.size], grads[loop.size :]
