"""Steps in a row that are replayed on the way back, one at a time: what `metapl.core.unrolling.scan` is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metapl.core import hvp, tree
from metapl.core.loops import Loop, ScanStep, Trail, back_through, loop_of
from metapl.core.torch_private import unwrap_dead
from metapl.core.types import PyTree


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
    loop, leaves = loop_of(step, carry, inputs, rule)
    found = list(_Replay.apply(loop, *leaves))  # type: ignore[no-untyped-call]
    end = loop.size * len(inputs)
    puts = [tree.unflatten(put, one) for put, one in zip(loop.puts(found[end:]), loop.outputs, strict=True)]
    return tree.unflatten(found[end - loop.size : end], loop.structure), puts


class _Replay(torch.autograd.Function):
    """All carries from the first and the inputs, and after them what the steps put out.

    Every carry is an output, so that higher derivatives see it too.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(loop: Loop, *leaves: Tensor) -> tuple[Tensor, ...]:
        trail: list[Tensor] = []
        puts: list[Tensor] = []
        for carry, output in loop.run(leaves):
            trail += carry
            puts += output
        return (*trail, *puts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.loop = inputs[0]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:], *output[: ctx.loop.size * (len(ctx.loop.outputs) - 1)])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        loop: Loop = ctx.loop
        saved = unwrap_dead(ctx.saved_tensors)
        first, inputs, held = loop.split(saved)
        later = saved[loop.size + loop.input_structure.num_leaves + len(held) :]
        end = loop.size * len(inputs)
        trail = Trail(
            loop.carries([*first, *later]),
            inputs,
            held,
            loop.carries(list(cotangents[:end])),
            loop.puts(list(cotangents[end:])),
        )
        return (None, *back_through(loop, trail, ctx.needs_input_grad[1:]))
