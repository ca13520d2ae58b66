"""A loop of steps as tensors that go in and out, and the way back through its steps, each run once more by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from metapl.core import autodiff, closures, hvp, tree
from metapl.core.strays import require_all_found
from metapl.core.torch_private import inside_transform
from metapl.core.types import PyTree

T = TypeVar("T", Tensor, Tensor | None)

Step: TypeAlias = Callable[[PyTree, PyTree], PyTree]
"""`step(carry, input)`: the next carry, of the same structure."""

ScanStep: TypeAlias = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
"""`step(carry, input)`: the next carry, of the same structure, and what this step puts out."""


def loop_of(
    step: ScanStep, carry: PyTree, inputs: Sequence[PyTree], rule: hvp.Rule | None
) -> tuple[Loop, list[Tensor]]:
    """A loop, and the leaves that it takes: of the carry, of the inputs, and what the step closes over.

    Raises:
        ValueError: leaves that are not tensors.
    """
    first, structure = tree.flatten(carry)
    rest, input_structure = tree.flatten(list(inputs))
    if not all(isinstance(leaf, Tensor) or leaf is None for leaf in (*first, *rest)):
        raise ValueError("unroll(): every leaf of the carry and of the inputs must be a tensor: torch.as_tensor(...)")
    held = [tensor for _, tensor in closures.captured(step)]
    return Loop(step, rule, structure, input_structure, len(first), held, []), [*first, *rest, *held]


@dataclass(frozen=True)
class Loop:
    """A loop without its tensors; `outputs` takes the structure of each step's output out of an `autograd.Function`.

    Not a tuple: torch.vmap would take it apart as a tree, `held` included.
    """

    step: ScanStep
    rule: hvp.Rule | None
    structure: Any
    input_structure: Any
    size: int
    held: Sequence[Tensor]
    """What the step closes over and gradients flow to: it goes in after the carry and the inputs."""
    outputs: list[Any]

    def split(self, leaves: Sequence[Any]) -> tuple[list[Any], list[PyTree], list[Any]]:
        """The leaves of the first carry, the inputs of every step, and what the step closes over."""
        end = self.size + self.input_structure.num_leaves
        return (
            list(leaves[: self.size]),
            tree.unflatten(list(leaves[self.size : end]), self.input_structure),
            list(leaves[end : end + len(self.held)]),
        )

    def run(self, leaves: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """The leaves of the carry after every step, and of its output."""
        carry, inputs, held = self.split(leaves)
        step = self.holding(held)
        self.outputs.clear()
        for given in inputs:
            # A copy where the step passes a tensor on: autograd wants outputs that are not inputs. A view of all
            # others: autograd writes on outputs, and a step may return a tensor that is somebody else's.
            passed = {id(leaf) for leaf in (*carry, *tree.leaves(given), *held)}
            after, output, structure = self.flat(step, carry, given)
            carry = [leaf.clone() if id(leaf) in passed else leaf.view_as(leaf) for leaf in after]
            passed |= {id(leaf) for leaf in after}
            self.outputs.append(structure)
            yield carry, [leaf.clone() if id(leaf) in passed else leaf.view_as(leaf) for leaf in output]

    def carries(self, leaves: Sequence[T]) -> list[list[T]]:
        """The leaves of every carry, from those of all carries in a row."""
        return [list(leaves[start : start + self.size]) for start in range(0, len(leaves), self.size)]

    def puts(self, leaves: Sequence[T]) -> list[list[T]]:
        """The leaves of every step's output, from those of all in a row."""
        rest = iter(leaves)
        return [[next(rest) for _ in range(one.num_leaves)] for one in self.outputs]

    def holding(self, held: Sequence[Tensor]) -> ScanStep:
        """The step with these tensors in place of those that it closes over."""
        swap = {id(old): new for old, new in zip(self.held, held, strict=True)}
        return closures.swapped(self.step, swap) if swap else self.step

    def flat(self, step: ScanStep, carry: Sequence[Tensor], given: PyTree) -> tuple[list[Tensor], list[Tensor], Any]:
        """One step, from the leaves of a carry to those of the next and of the output, and the output's structure."""
        after, output = paired(step(tree.unflatten(list(carry), self.structure), given))
        try:  # by name: a step may list the entries of a dict in another order
            leaves: list[Any] = self.structure.flatten_up_to(after)
        except ValueError:
            leaves = [None]
        if not all(isinstance(leaf, Tensor) for leaf in leaves):
            before = tree.sketch(tree.unflatten([0] * self.structure.num_leaves, self.structure))
            raise ValueError(f"unroll(): step turned a carry of structure {before} into {tree.sketch(after)}") from None
        puts, structure = tree.flatten(output)
        strange = next((leaf for leaf in puts if not isinstance(leaf, Tensor)), None)
        if strange is not None:
            raise ValueError(f"scan(): an output of step is {strange!r}, a {type(strange).__name__}, not a tensor")
        return leaves, puts, structure


def paired(found: Any) -> tuple[PyTree, PyTree]:
    """What the step of a scan returned, or a `ValueError` if it is no pair."""
    if not isinstance(found, tuple) or len(found) != 2:
        kind = f"a tuple of {len(found)}" if isinstance(found, tuple) else f"a {type(found).__name__}"
        raise ValueError(f"scan(): step must return (carry, output), it returned {kind}: output may be ()")
    return found


Grads: TypeAlias = list[Tensor | None]
"""Gradients by leaf; None where a leaf has none."""


class Trail(NamedTuple):
    """What a loop went through, and what has come back to it."""

    carries: Sequence[list[Tensor]]
    """The leaves of the carry before each step."""
    inputs: Sequence[PyTree]
    held: Sequence[Tensor]
    arriving: Sequence[Grads]
    """Cotangents of the carry after each step."""
    to_puts: Sequence[Grads]
    """Cotangents of the output of each step."""


def back_through(loop: Loop, trail: Trail, needed: Sequence[bool]) -> list[Tensor | None]:
    """The cotangents of all leaves of a loop, from the last step to the first; `needed` says which are asked for."""
    carries, inputs, held, arriving, to_puts = trail
    end = loop.size + loop.input_structure.num_leaves
    back: Grads = [None] * loop.size
    to_inputs: list[Grads] = []
    to_held: Grads = [None] * len(held)
    for index in reversed(range(len(inputs))):
        start = end - len(tree.leaves(inputs[index]))
        carry = carries[index]
        # Of the first carry only what the caller asks for: often nothing, which spares the Hessian there.
        asked = needed[: loop.size] if index == 0 else [tree.differentiable(leaf) for leaf in carry]
        along = [*map(_sum, back, arriving[index]), *to_puts[index]]
        wanted = [*asked, *needed[start:end], *needed[len(needed) - len(held) :]]
        back, to_input, more = _step_vjp(loop, _Step(carry, inputs[index], held), along, wanted)
        to_inputs.append(to_input)
        to_held = list(map(_sum, to_held, more))
        end = start
    return [*back, *(grad for grads in reversed(to_inputs) for grad in grads), *to_held]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


class _Step(NamedTuple):
    """What one step was called with, and what it closes over."""

    carry: list[Tensor]
    given: PyTree
    held: Sequence[Tensor]


def _step_vjp(
    loop: Loop, at: _Step, cotangents: Sequence[Tensor | None], wanted: Sequence[bool]
) -> tuple[Grads, Grads, Grads]:
    """One step replayed, and the vjp of its carry and output to the wanted leaves of all that it depends on."""
    primals, structure = tree.flatten(tuple(at))
    moving = [index for index, want in enumerate(wanted) if want]
    arriving = [index for index, cotangent in enumerate(cotangents) if cotangent is not None]

    def replayed(*moved: Tensor) -> tuple[Tensor, ...]:
        full = list(primals)
        for index, leaf in zip(moving, moved, strict=True):
            full[index] = leaf
        carry, given, held = tree.unflatten(full, structure)
        with hvp.using(loop.rule):
            after, output, _ = loop.flat(loop.holding(held), carry, given)
        found = [*after, *output]
        return tuple(found[index] for index in arriving)

    grads: Grads = [None] * len(primals)
    if arriving and moving:
        through = _transformed if inside_transform() else _recorded
        with autodiff.explained():
            found = through(
                replayed, [primals[index] for index in moving], [cotangents[index] for index in arriving], primals
            )
        for index, grad in zip(moving, found, strict=True):
            grads[index] = grad
    end = len(grads) - len(at.held)
    return grads[: loop.size], grads[loop.size : end], grads[end:]


def _transformed(
    fn: Callable[..., tuple[Tensor, ...]], at: list[Tensor], cotangents: list[Any], _known: list[Tensor]
) -> Sequence[Any]:
    # Not by `torch.func.vjp`: its way back comes after its transform, where torch 2.14 refuses BatchNorm under vmap.
    found: Sequence[Any] = torch.func.grad(
        lambda *leaves: tree.dot(list(fn(*leaves)), cotangents), argnums=tuple(range(len(at)))
    )(*at)
    return found


def _recorded(
    fn: Callable[..., tuple[Tensor, ...]], at: list[Tensor], cotangents: list[Any], known: list[Tensor]
) -> Sequence[Any]:
    """The same by autograd, at a fraction of the memory: torch.func records every gradient for a second derivative."""
    again = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in [*at, *cotangents])
    with torch.enable_grad():
        leaves = [leaf.view_as(leaf) if again and leaf.requires_grad else leaf.detach().requires_grad_() for leaf in at]
        pairs = [(out, along) for out, along in zip(fn(*leaves), cotangents, strict=True) if out.requires_grad]
        outputs, arriving = zip(*pairs, strict=True) if pairs else ((), ())
        if not again:
            require_all_found(outputs, lambda: fn(*leaves), known)
        return (
            torch.autograd.grad(outputs, leaves, arriving, create_graph=again, allow_unused=True)
            if pairs
            else [None] * len(at)
        )
