"""Steps in a row whose carries are in files until the way back: `replay` with the disk in place of memory."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from metapl.core import tree
from metapl.core.loops import Grads, Loop, ScanStep, Trail, back_through, loop_of
from metapl.core.replaying import replay
from metapl.core.torch_private import inside_transform
from metapl.core.types import PyTree
from metapl.registry.errors import InputError


def stored(step: ScanStep, carry: PyTree, inputs: Sequence[PyTree], folder: Path) -> tuple[PyTree, list[PyTree]]:
    """The last carry and the output of every step, as `replay` has them; the carry before each step is in a file.

    Raises:
        InputError: inside of a `torch.func` transform, whose tensors are none that a file can hold.
    """
    if inside_transform():
        raise InputError(
            "checkpoints.disk() is for .backward() and bilevel.hypergradient: inside of torch.func take "
            "checkpoints='log', which keeps little and keeps it in memory"
        )
    loop, leaves = loop_of(step, carry, inputs, None)
    found = list(_Stored.apply(loop, folder, *leaves))  # type: ignore[no-untyped-call]
    puts = [tree.unflatten(put, one) for put, one in zip(loop.puts(found[loop.size :]), loop.outputs, strict=True)]
    return tree.unflatten(found[: loop.size], loop.structure), puts


class _Files(Sequence[list[Tensor]]):
    """The leaves of carries in files, in a folder that is removed with this object.

    Args:
        folder: the folder is made inside of it.
        first: the first carry, which stays in memory; the others have its dtypes and devices.
    """

    def __init__(self, folder: Path, first: list[Tensor]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._own = Path(tempfile.mkdtemp(prefix="carries-", dir=folder))
        weakref.finalize(self, shutil.rmtree, self._own, ignore_errors=True)
        self._first = first
        self._count = 1

    def __len__(self) -> int:
        return self._count

    def append(self, carry: Sequence[Tensor]) -> None:
        """Write the next carry."""
        real = [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in carry]
        # Clones, as safetensors refuses tensors that share memory.
        save_file(
            {str(at): leaf.clone(memory_format=torch.contiguous_format) for at, leaf in enumerate(real)},
            self._path(self._count),
        )
        self._count += 1

    @overload
    def __getitem__(self, index: int) -> list[Tensor]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[Tensor]]: ...
    def __getitem__(self, index: int | slice) -> list[Tensor] | list[list[Tensor]]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._count))]
        if index == 0:
            return self._first
        found = load_file(self._path(index))
        return [_as(found[str(at)], like) for at, like in enumerate(self._first)]

    def _path(self, index: int) -> Path:
        return self._own / f"{index}.safetensors"


def _as(read: Tensor, like: Tensor) -> Tensor:
    # A copy: in its file a number may stand where torch expects no complex one, and reading it there ends the process.
    read = read.to(like.device, copy=True)
    return torch.view_as_complex(read) if like.is_complex() else read


class _Stored(torch.autograd.Function):
    """The last carry, and after it what the steps put out."""

    @staticmethod
    def forward(ctx: Any, loop: Loop, folder: Path, *leaves: Tensor) -> tuple[Tensor, ...]:
        ctx.loop, ctx.carries = loop, _Files(folder, [leaf.detach() for leaf in leaves[: loop.size]])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*leaves)
        puts: list[Tensor] = []
        count = len(loop.split(leaves)[1])
        for index, (carry, output) in enumerate(loop.run(leaves)):
            if index + 1 < count:
                ctx.carries.append(carry)
            puts += output
        return (*carry, *puts)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        loop: Loop = ctx.loop
        needed = list(ctx.needs_input_grad[2:])
        if torch.is_grad_enabled():
            return (None, None, *_again(loop, list(ctx.saved_tensors), cotangents, needed))
        _, inputs, held = loop.split(ctx.saved_tensors)
        nothing: Grads = [None] * loop.size  # the carries between are no outputs
        arriving = [*(nothing for _ in inputs[1:]), list(cotangents[: loop.size])]
        trail = Trail(ctx.carries, inputs, held, arriving, loop.puts(list(cotangents[loop.size :])))
        return (None, None, *back_through(loop, trail, needed))


def _again(
    loop: Loop, leaves: list[Tensor], cotangents: Sequence[Tensor | None], needed: Sequence[bool]
) -> list[Tensor | None]:
    """The cotangents of the leaves as functions of them: by `replay`, for a second derivative."""
    moved = [leaf.view_as(leaf) if need else leaf for leaf, need in zip(leaves, needed, strict=True)]
    first, inputs, held = loop.split(moved)
    carry, ys = replay(loop.holding(held), tree.unflatten(first, loop.structure), inputs, None)
    found = zip(tree.leaves((carry, ys)), cotangents, strict=True)
    pairs = [(out, along) for out, along in found if along is not None and out.requires_grad]
    grads: list[Tensor | None] = [None] * len(leaves)
    wanted = [at for at, need in enumerate(needed) if need]
    if pairs and wanted:
        outputs, arriving = zip(*pairs, strict=True)
        back = torch.autograd.grad(
            outputs, [moved[at] for at in wanted], arriving, create_graph=True, allow_unused=True
        )
        for at, grad in zip(wanted, back, strict=True):
            grads[at] = grad
    return grads
