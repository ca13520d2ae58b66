"""Steps in a row that are replayed on the way back, one at a time: what `metapl.core.unrolling.scan` is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from metapl.core import closures, hvp, tree
from metapl.core.autodiff import nodes
from metapl.core.interception import Interception
from metapl.core.torch_private import inside_transform, unwrap_dead
from metapl.core.types import PyTree
from metapl.registry.errors import InputError

T = TypeVar("T", Tensor, Tensor | None)

Step: TypeAlias = Callable[[PyTree, PyTree], PyTree]
"""`step(carry, input)`: the next carry, of the same structure."""

ScanStep: TypeAlias = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
"""`step(carry, input)`: the next carry, of the same structure, and what this step puts out."""


def replay(
    step: ScanStep, carry: PyTree, inputs: Sequence[PyTree], rule: hvp.Rule | None
) -> tuple[PyTree, list[PyTree]]:
    """The last carry and the output of every step. On the way back every step is run once more, recorded by itself.

    Args:
        step: the body of the loop.
        carry: tensors.
        inputs: one for each step.
        rule: for Hessian-vector products, within the steps.

    Raises:
        ValueError: leaves that are not tensors, or a step that changes the structure of its carry or returns no pair.
        InputError: on the way back, a tensor that requires a gradient and that was not found.
    """
    first, structure = tree.flatten(carry)
    rest, input_structure = tree.flatten(list(inputs))
    if not all(isinstance(leaf, Tensor) or leaf is None for leaf in (*first, *rest)):
        raise ValueError("unroll(): every leaf of the carry and of the inputs must be a tensor: torch.as_tensor(...)")
    held = [tensor for _, tensor in closures.captured(step)]
    loop = _Loop(step, rule, structure, input_structure, len(first), held, [])
    found = list(_Replay.apply(loop, *first, *rest, *held))  # type: ignore[no-untyped-call]
    end = len(first) * len(inputs)
    outputs = iter(found[end:])
    puts = [tree.unflatten([next(outputs) for _ in range(one.num_leaves)], one) for one in loop.outputs]
    return tree.unflatten(found[end - len(first) : end], structure), puts


@dataclass(frozen=True)
class _Loop:
    """What `_Replay` needs beside tensors; `outputs` takes the structure of each step's output out of it.

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
            found = tree.flatten(after)[1]
            raise ValueError(f"unroll(): step turned a carry of structure {self.structure} into {found}") from None
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


class _Replay(torch.autograd.Function):
    """All carries from the first and the inputs, and after them what the steps put out.

    Every carry is an output, so that higher derivatives see it too.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(loop: _Loop, *leaves: Tensor) -> tuple[Tensor, ...]:
        carry = list(leaves[: loop.size])
        end = loop.size + loop.input_structure.num_leaves
        step = loop.holding(leaves[end:])
        trail: list[Tensor] = []
        puts: list[Tensor] = []
        loop.outputs.clear()
        for given in tree.unflatten(list(leaves[loop.size : end]), loop.input_structure):
            # A copy where the step passes a tensor on: autograd wants outputs that are not inputs. A view of all
            # others: autograd writes on outputs, and a step may return a tensor that is somebody else's.
            passed = {id(leaf) for leaf in (*carry, *tree.leaves(given), *leaves[end:])}
            after, output, structure = loop.flat(step, carry, given)
            carry = [leaf.clone() if id(leaf) in passed else leaf.view_as(leaf) for leaf in after]
            passed |= {id(leaf) for leaf in after}
            trail += carry
            puts += [leaf.clone() if id(leaf) in passed else leaf.view_as(leaf) for leaf in output]
            loop.outputs.append(structure)
        return (*trail, *puts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.loop = inputs[0]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:], *output[: ctx.loop.size * (len(ctx.loop.outputs) - 1)])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        loop: _Loop = ctx.loop
        saved = unwrap_dead(ctx.saved_tensors)
        start, count = loop.size, loop.input_structure.num_leaves
        inputs = tree.unflatten(saved[start : start + count], loop.input_structure)
        held = saved[start + count : start + count + len(loop.held)]
        carries = loop.carries([*saved[:start], *saved[start + count + len(held) :]])
        arriving = loop.carries(list(cotangents[: loop.size * len(inputs)]))
        to_puts = loop.puts(list(cotangents[loop.size * len(inputs) :]))
        needed = list(ctx.needs_input_grad[1:])
        end = start + count
        back: list[Tensor | None] = [None] * loop.size
        to_inputs: list[Tensor | None] = []
        to_held: list[Tensor | None] = [None] * len(held)
        for index in reversed(range(len(inputs))):
            start = end - len(tree.leaves(inputs[index]))
            # Of the first carry only what the caller asks for: often nothing, which spares the Hessian there.
            asked = needed[: loop.size] if index == 0 else [tree.differentiable(leaf) for leaf in carries[index]]
            along = [*map(_sum, back, arriving[index]), *to_puts[index]]
            at = _Step(carries[index], inputs[index], held)
            wanted = [*asked, *needed[start:end], *needed[len(needed) - len(held) :]]
            back, to_input, more = _step_vjp(loop, at, along, wanted)
            to_inputs = [*to_input, *to_inputs]
            to_held = list(map(_sum, to_held, more))
            end = start
        return (None, *back, *to_inputs, *to_held)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


class _Step(NamedTuple):
    """What one step was called with, and what it closes over."""

    carry: list[Tensor]
    given: PyTree
    held: Sequence[Tensor]


Grads: TypeAlias = list[Tensor | None]
"""Gradients by leaf; None where a leaf has none."""


def _step_vjp(
    loop: _Loop, at: _Step, cotangents: Sequence[Tensor | None], wanted: Sequence[bool]
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
            _require_all_found(outputs, lambda: fn(*leaves), known)
        return (
            torch.autograd.grad(outputs, leaves, arriving, create_graph=again, allow_unused=True)
            if pairs
            else [None] * len(at)
        )


def _require_all_found(outputs: Sequence[Tensor], again: Callable[[], object], known: Sequence[Tensor]) -> None:
    """Refuse a step that depends on a tensor which requires a gradient and is none of the known ones.

    Leaves of the graph that a step has made itself, to take a gradient, are told apart by their storage or, if they
    have one of their own, by running the step once more and watching what it makes.
    """
    places = {leaf.untyped_storage().data_ptr() for leaf in known if isinstance(leaf, Tensor)}
    strange = [leaf for leaf in _leaves(outputs) if leaf.untyped_storage().data_ptr() not in places]
    if not strange:
        return
    made: list[Tensor] = []
    with Interception(partial(_keep, made)):
        fresh: Any = again()
    for leaf in _leaves(fresh):
        if leaf.untyped_storage().data_ptr() not in places and not any(leaf is one for one in made):
            raise InputError(
                f"unroll(): step uses a tensor of shape {list(leaf.shape)} that requires a gradient and that unroll "
                "cannot find in it, such as a parameter of an nn.Module: put it into the carry or the inputs"
            )


def _leaves(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Where the graph of the outputs begins."""
    return [node.variable for node in nodes(outputs) if hasattr(node, "variable")]


def _keep(made: list[Tensor], func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call, and keep every leaf of a graph that comes back."""
    found = func(*args, **kwargs)
    made += [leaf for leaf in tree.leaves(found) if isinstance(leaf, Tensor) and leaf.is_leaf]
    return found
