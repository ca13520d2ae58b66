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

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from metapl import inner, tree
from metapl.errors import unknown
from metapl.gradients import alive, transforming
from metapl.types import PyTree

T = TypeVar("T", Tensor, Tensor | None)

Step = Callable[[PyTree, PyTree], PyTree]
"""`step(carry, input)`: the next carry, of the same structure."""

PRODUCTS: dict[str, inner.Product | None] = {
    "replay": None,
    "mixed": inner.mixed,
    "difference": inner.difference(),
    "first-order": inner.dropped,
}
"""How the replaying methods differentiate the gradients that the steps take with `inner.gradient`."""

METHODS = ("reverse", *PRODUCTS)


def unroll(
    step: Step,
    carry: PyTree,
    inputs: Sequence[PyTree],
    *,
    method: str | inner.Product = "replay",
    checkpoints: bool = False,
    last: int | None = None,
) -> PyTree:
    """Apply `step` once for every input, and return the last carry.

    The result is differentiable in the carry and in every input, by `torch.func` and by `.backward()` alike, and as
    often as `step` is. `step` must be a pure function of its arguments: what it closes over is a constant, so that
    a tensor to be differentiated belongs into the carry or the inputs. Inside it take gradients with
    `metapl.inner.gradient`; those of `torch.func.grad` are right too, but leave nothing to choose for the last three
    methods and cost more. Forward mode (`torch.func.jvp` of the whole) needs "reverse".

    Args:
        step: the body of the loop.
        carry: what goes from step to step, such as parameters, buffers and optimiser state.
        inputs: what each step gets, all of the same structure.
        method: what is kept on the way there, and how the way back goes for K steps.
            "reverse": record every step. The memory of K steps.
            "replay": keep the K carries, and replay and record one step at a time. One more pass of every step.
            "mixed": as replay, and the inner gradients by forward mode over reverse mode: no graph of a gradient.
            "difference", or a product such as `inner.difference(1e-3)`: as replay, and the inner gradients by
            central differences. An approximation, O(radius²).
            "first-order": as replay, and the inner gradients as constants. An approximation, O(lr).
        checkpoints: keep every √K-th carry only, and the carries between two of them when it is their turn: about
            2 √K carries in place of K, for one more pass of every step. Not for "reverse".
        last: differentiate the last so many steps only; all that comes before them counts as a constant.

    Raises:
        InputError: an unknown method.
        ValueError: `last` below 1, or checkpoints of "reverse", which keeps everything.
    """
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
    if method == "reverse":
        return _reverse(step, carry, inputs)
    product = PRODUCTS[method] if isinstance(method, str) else method
    if not checkpoints:
        return _replay(step, carry, inputs, product)
    size = math.isqrt(len(inputs) - 1) + 1
    segments = [list(inputs[start : start + size]) for start in range(0, len(inputs), size)]
    return _replay(lambda carry, segment: _replay(step, carry, segment, product), carry, segments, None)


def _reverse(step: Step, carry: PyTree, inputs: Sequence[PyTree]) -> PyTree:
    for given in inputs:
        carry = step(carry, given)
    return carry


def _replay(step: Step, carry: PyTree, inputs: Sequence[PyTree], product: inner.Product | None) -> PyTree:
    first, structure = tree.flatten(carry)
    rest, input_structure = tree.flatten(list(inputs))
    if not all(isinstance(leaf, Tensor) or leaf is None for leaf in (*first, *rest)):
        raise ValueError("unroll(): every leaf of the carry and of the inputs must be a tensor: torch.as_tensor(...)")
    loop = _Loop(step, product, structure, input_structure, len(first))
    trail = _Replay.apply(loop, *first, *rest)
    return tree.unflatten(list(trail[-len(first) :]), structure)


class _Loop(NamedTuple):
    """What `_Replay` needs beside tensors."""

    step: Step
    product: inner.Product | None
    structure: Any
    input_structure: Any
    size: int

    def carries(self, leaves: Sequence[T]) -> list[list[T]]:
        """The leaves of every carry, from those of all carries in a row."""
        return [list(leaves[start : start + self.size]) for start in range(0, len(leaves), self.size)]

    def flat(self, carry: Sequence[Tensor], given: PyTree) -> list[Tensor]:
        """One step, from the leaves of a carry to those of the next."""
        after = self.step(tree.unflatten(list(carry), self.structure), given)
        try:  # by name: a step may list the entries of a dict in another order
            leaves = self.structure.flatten_up_to(after)
        except ValueError:
            leaves = [None]
        if not all(isinstance(leaf, Tensor) for leaf in leaves):
            found = tree.flatten(after)[1]
            raise ValueError(f"unroll(): step turned a carry of structure {self.structure} into {found}") from None
        return leaves


class _Replay(torch.autograd.Function):
    """All carries from the first and the inputs. Every carry is an output, so that higher derivatives see it too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(loop: _Loop, *leaves: Tensor) -> tuple[Tensor, ...]:
        carry = list(leaves[: loop.size])
        trail: list[Tensor] = []
        for given in tree.unflatten(list(leaves[loop.size :]), loop.input_structure):
            # A copy where the step passes a tensor on: autograd wants outputs that are not inputs. A view of all
            # others: autograd writes on outputs, and a step may return a tensor that is somebody else's.
            passed = {id(leaf) for leaf in (*carry, *tree.leaves(given))}
            carry = [leaf.clone() if id(leaf) in passed else leaf.view_as(leaf) for leaf in loop.flat(carry, given)]
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
        saved = alive(ctx.saved_tensors)
        count = loop.input_structure.num_leaves
        inputs = tree.unflatten(saved[loop.size : loop.size + count], loop.input_structure)
        carries = loop.carries([*saved[: loop.size], *saved[loop.size + count :]])
        arriving = loop.carries(list(cotangents))
        needed = list(ctx.needs_input_grad[1:])
        end = len(needed)
        back: list[Tensor | None] = [None] * loop.size
        to_inputs: list[Tensor | None] = []
        for index in reversed(range(len(inputs))):
            start = end - len(tree.leaves(inputs[index]))
            # Of the first carry only what the caller asks for: often nothing, which spares the Hessian there.
            asked = needed[: loop.size] if index == 0 else [leaf.is_floating_point() for leaf in carries[index]]
            told = [_sum(a, b) for a, b in zip(back, arriving[index], strict=True)]
            back, to_input = _pull(loop, carries[index], inputs[index], told, [*asked, *needed[start:end]])
            to_inputs = [*to_input, *to_inputs]
            end = start
        return (None, *back, *to_inputs)


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
        with inner.differentiated_by(loop.product):
            after = loop.flat(full[: loop.size], tree.unflatten(full[loop.size :], structure))
        return tuple(after[index] for index in told)

    grads: list[Tensor | None] = [None] * len(primals)
    if told and moving:
        pull = _transformed if transforming() else _recorded
        found = pull(replayed, [primals[index] for index in moving], [cotangents[index] for index in told])
        for index, grad in zip(moving, found, strict=True):
            grads[index] = grad
    return grads[: loop.size], grads[loop.size :]


def _transformed(fn: Callable[..., tuple[Tensor, ...]], at: list[Tensor], cotangents: list[Any]) -> Sequence[Any]:
    return torch.func.vjp(fn, *at)[1](tuple(cotangents))


def _recorded(fn: Callable[..., tuple[Tensor, ...]], at: list[Tensor], cotangents: list[Any]) -> Sequence[Any]:
    """The same by autograd, at a fraction of the memory: torch.func records every gradient for a second derivative."""
    again = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in [*at, *cotangents])
    with torch.enable_grad():
        leaves = [leaf.view_as(leaf) if again and leaf.requires_grad else leaf.detach().requires_grad_() for leaf in at]
        pairs = [(out, told) for out, told in zip(fn(*leaves), cotangents, strict=True) if out.requires_grad]
        outputs, arriving = zip(*pairs, strict=True) if pairs else ((), ())
        return (
            torch.autograd.grad(outputs, leaves, arriving, create_graph=again, allow_unused=True)
            if pairs
            else [None] * len(at)
        )
