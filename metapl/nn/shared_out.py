"""A network whose passes are shared out among processes: data parallel training, as a property of the network alone.

    x `[batch, ...]`, the same in all processes
      │  own rows: process r of N has r, r + N, r + 2N, …
      ▼
    the network on its own rows; its parameters `enter`, so that gradients come back summed
      │  put in their places, zeros elsewhere, and `leave`
      ▼
    logits `[batch, classes]`, the same in all processes

Whoever calls such a network need not know. What is made of the logits, such as labels, losses, thresholds, alignments
and the exam, is computed by every process for the whole batch, and is therefore what one process alone computes; so are
the updates, from gradients that are summed. See `metapl.core.collectives` for the two maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl.core import torch_private, tree
from metapl.core.collectives import Processes, enter, leave
from metapl.core.types import Buffers, Key, Model, Params
from metapl.nn.microbatch import one_part
from metapl.nn.synchronised import batch_norms_across
from metapl.registry.errors import InputError


def shared_out(model: Model, processes: Processes, *, group: int = 0, groups: int = 0, microbatch: int = 0) -> Model:
    """The model with its passes in training shared out among processes.

    Args:
        model: any; its random draws are those of the whole batch as far as dropout layers make them.
        processes: who trains together.
        group: the most examples that share BatchNorm statistics, as of `metapl.nn.microbatch.in_parts`; 0 for the whole
            batch, whose statistics are then synchronised: every BatchNorm sums its moments over the processes. The
            groups are dealt out whole.
        groups: in place of `group`, how many groups a batch has whatever its size. With as many as there are processes,
            each has statistics of its own.
        microbatch: the most examples of a process in memory at a time, as of `in_parts`; 0 for all.

    Returns:
        A model whose training passes take the whole batch, return the whole batch's logits, and must be made by all
        processes together. In evaluation it is `model`.

    Raises:
        InputError: from a pass, synchronised statistics of fewer examples than processes.

    Cost: a pass over batch / processes examples; its logits and running statistics are summed on the way there, all
    parameters on the way back, and where statistics are synchronised two numbers a channel and process both ways.
    """
    if processes.count == 1:
        raise ValueError("shared_out() is for several processes")
    division = _Division(processes, group, groups, microbatch, model.coupled and not (group or groups))

    def apply(
        params: Params, buffers: Buffers, x: Tensor, *, train: bool, key: Key | None = None
    ) -> tuple[Tensor, Buffers]:
        if not train:
            return model.apply(params, buffers, x, train=False, key=key)
        differentiated = [x] if x.requires_grad or torch_private.is_wrapped(x) else []
        *values, seen = (*enter(processes, [*params.values(), *differentiated]), x)[: len(params) + 1]
        entered = dict(zip(params, values, strict=True))
        places, counted = division.own(len(x), x.device)
        recompute = microbatch > 0 and len(places) > 1
        with division.statistics(len(x)):
            passes = [one_part(model, entered, buffers, seen[rows], key, rows, recompute) for rows in places]
        logits = torch.cat([logits for logits, _ in passes])
        placed = _placed(logits, torch.cat(places), len(x), counted)
        weights = [counted * len(rows) / len(x) for rows in places]
        return _together(processes, placed, buffers, [after for _, after in passes], weights, model.frozen)

    return model._replace(apply=apply)


def evaluated_by(model: Model, processes: Processes) -> Model:
    """The model with its passes in evaluation shared out, which all processes must make together; nothing flows back.

    Cost: a pass over batch / processes examples, and the sum of the logits.
    """
    if processes.count == 1:
        return model

    def apply(
        params: Params, buffers: Buffers, x: Tensor, *, train: bool, key: Key | None = None
    ) -> tuple[Tensor, Buffers]:
        if train:
            return model.apply(params, buffers, x, train=True, key=key)
        (rows,), counted = _Division(processes, 0, 0, 0, False).own(len(x), x.device)
        logits, _ = model.apply(params, buffers, x[rows], train=False, key=key)
        return leave(processes, [_placed(logits, rows, len(x), counted)])[0], buffers

    return model._replace(apply=apply)


class _Division(NamedTuple):
    """How a batch is divided into parts, and which of them are this process's."""

    processes: Processes
    group: int
    groups: int
    microbatch: int
    synchronised: bool

    def parts(self, size: int) -> int:
        """Part i of n holds the examples i, i + n, i + 2n, …; process r of N has the parts r, r + N, ….

        Without groups n is a multiple of N, so that the rows of a process are r, r + N, … however many parts it has.
        """
        count = self.processes.count
        if self.groups:
            return min(self.groups, size)
        if self.group:
            return -(-size // self.group)
        own = -(-size // count)
        return count * (1 if self.synchronised or not self.microbatch else -(-own // self.microbatch))

    def own(self, size: int, device: torch.device) -> tuple[list[Tensor], bool]:
        """The rows of each of its parts, and whether they count: a process without any does the first part again."""
        rank, count = self.processes.rank, self.processes.count
        if self.synchronised and size < count:
            raise InputError(
                f"{count} processes share the statistics of a BatchNorm layer over a batch of {size} examples: start "
                "fewer processes, take larger batches, or a model without it such as convnet:norm=group"
            )
        parts = self.parts(size)
        mine = [part for part in range(rank, parts, count) if part < size]
        return [torch.arange(part, size, parts, device=device) for part in mine or [0]], bool(mine)

    def statistics(self, size: int) -> Any:
        """Within the block BatchNorm layers take their statistics over all processes, if that is wanted."""
        if not self.synchronised:
            return nullcontext()
        count = self.processes.count
        shares = [len(range(rank, size, count)) for rank in range(count)]
        return batch_norms_across(self.processes, shares)


def _placed(logits: Tensor, rows: Tensor, size: int, counted: bool) -> Tensor:
    """Rows `[size, ...]` of a whole batch with some of them filled in."""
    whole = logits.new_zeros(size, *logits.shape[1:])
    return whole.index_copy(0, rows, logits if counted else logits * 0.0)


def _together(
    processes: Processes,
    placed: Tensor,
    before: Buffers,
    after: Sequence[Buffers],
    weights: Sequence[float],
    frozen: frozenset[str],
) -> tuple[Tensor, Buffers]:
    """The logits of all processes, and the weighted mean of the buffers after all parts; counters as after the first.

    It is the mean of the changes, so that what does not change stays what it is to the last bit.
    """
    names = [name for name, value in before.items() if name not in frozen and tree.differentiable(value)]
    changes = [
        torch.stack([weight * (one[name] - before[name]) for weight, one in zip(weights, after, strict=True)]).sum(0)
        for name in names
    ]
    logits, *summed = leave(processes, [placed, *changes])
    moved = {name: before[name] + change.detach() for name, change in zip(names, summed, strict=True)}
    return logits, {**after[0], **moved}
