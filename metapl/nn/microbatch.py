"""A network applied to a batch in parts: less memory, or BatchNorm statistics of smaller groups.

The parts are recomputed on the way back, so at most one part's activations are alive at a time; whoever differentiates,
in whatever mode and order, need not know. Without BatchNorm the result does not depend on the parts. With it the parts
are what shares statistics, as the replicas of the paper's training do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from metapl.core import torch_private, tree
from metapl.core.types import Buffers, Key, Model, Params


def in_parts(model: Model, size: int, *, recompute: bool = True, groups: int = 0) -> Model:
    """The model applied to parts of at most `size` examples of a batch, or to so many `groups` of it.

    Part i of n holds the examples i, i + n, i + 2 n, …, so that parts of a batch that is several views one after
    another hold the same share of each. Every part starts from the same buffers; the running statistics after the
    batch are the mean of those after the parts, which for BatchNorm are what the mean of the parts' statistics gives.
    Evaluation is not divided.

    Args:
        model: any; its random draws are those of the whole batch as far as dropout layers make them.
        size: the most examples in a part; not used where there are `groups`.
        recompute: forget the activations of a part and recompute them for `torch.autograd`: one more forward pass
            for the memory of one part. Forward mode keeps nothing anyway, `torch.func`'s reverse mode keeps all.
        groups: parts into which a batch is divided whatever its size, as far as it has examples for them.

    Cost: n calls where there was one, and 1 F more where it is recomputed.
    """

    def apply(
        params: Params, buffers: Buffers, x: Tensor, *, train: bool, key: Key | None = None
    ) -> tuple[Tensor, Buffers]:
        count = min(groups, len(x)) if groups else -(-len(x) // size)
        if not train or count == 1:
            return model.apply(params, buffers, x, train=train, key=key)
        places = [torch.arange(part, len(x), count, device=x.device) for part in range(count)]
        passes = [one_part(model, params, buffers, x[rows], key, rows, recompute) for rows in places]
        order = torch.argsort(torch.cat(places))
        logits = torch.cat([logits for logits, _ in passes])[order]
        return logits, _mean([after for _, after in passes], [len(rows) / len(x) for rows in places])

    return model._replace(apply=apply)


def one_part(
    model: Model, params: Params, buffers: Buffers, x: Tensor, key: Key | None, rows: Tensor, recompute: bool
) -> tuple[Tensor, Buffers]:
    """A pass in training over some examples `x` of a batch, which stand at `rows` in it; see `in_parts`."""
    names = list(params)

    def part(x: Tensor, *values: Tensor) -> tuple[Tensor, Buffers]:
        return model.apply(dict(zip(names, values, strict=True)), buffers, x, train=True, key=key, rows=rows)

    if not recompute or torch_private.inside_transform() or not torch.is_grad_enabled():
        return part(x, *params.values())
    # The draws are functions of the key, so torch's generator need not be kept for the second pass.
    kept: Any = checkpoint(part, x, *params.values(), use_reentrant=False, preserve_rng_state=False)
    return kept


def _mean(states: list[Buffers], weights: list[float]) -> Buffers:
    """The weighted mean; counters are taken from the first."""

    def mean(*leaves: Tensor) -> Tensor:
        if not tree.differentiable(leaves[0]):
            return leaves[0]
        return torch.stack([weight * leaf for weight, leaf in zip(weights, leaves, strict=True)]).sum(0)

    return tree.map(mean, *states)
