"""Views of vectors: pure functions of a batch `[batch, features]` and a key, drawn anew for every example.

Examples:
    >>> import torch
    >>> from metapl.core import rng
    >>> from metapl.data.augment import tabular
    >>> view = tabular.swap(0.5, groups=(0, 0, 1))
    >>> view(torch.eye(3), rng.key(0)).shape
    torch.Size([3, 3])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key
from metapl.data.augment.base import View, normal_for, require_whole


def swap(probability: float, groups: Sequence[int]) -> View:
    """Swap noise: every feature of every example becomes, with this probability, that of another in the batch.

        x′[i, g] = x[j, g] with j uniform over the batch without i, with the given probability; else x[i, g]

    Each group g of features is drawn on its own, in one piece. A value that is put in is one that occurs, and a
    feature keeps its distribution over the batch, which it loses if it is set to zero. So corrupt VIME (Yoon, Zhang,
    Jordon and van der Schaar, NeurIPS 2020) and SCARF (Bahri, Jiang, Tay and Metzler, ICLR 2022), which draw the other
    example from the batch and from the training set. A batch of one example stays as it is.

    Args:
        probability: of each group of each example.
        groups: `[features]`, the group of each feature, from 0: those of one group, such as the categories of one
            column, always come from the same example.

    Raises:
        ValueError: a probability outside 0 … 1.
    """
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"swap({probability}) is no probability: it must be from 0 to 1")
    group = torch.tensor(groups)
    count = int(group.max()) + 1
    alone = torch.equal(group, torch.arange(len(group)))

    def view(x: Tensor, key: Key) -> Tensor:
        require_whole(x)
        batch = len(x)
        which_key, other_key = rng.split(key, 2)
        which = rng.uniform(which_key, (batch, count), device=x.device) < probability
        ahead = rng.randint(other_key, (batch, count), batch - 1, x.device)
        other = ahead.add_(torch.arange(1, batch + 1, device=x.device)[:, None])
        if not alone:
            columns = group.to(x.device)
            which, other = which[:, columns], other[:, columns]
        twice = torch.cat([x, x])  # in place of an index modulo the batch, which is slow
        return torch.where(which, twice.gather(0, other), x)

    return view


def noise(std: float, features: Sequence[bool]) -> View:
    """Gaussian noise of the given standard deviation on some of the features `[features]`, none on the others.

    Raises:
        ValueError: a negative standard deviation.
    """
    if std < 0:
        raise ValueError(f"noise({std}) must not be negative")
    scale = std * torch.tensor(features)

    def view(x: Tensor, key: Key) -> Tensor:
        return x + scale.to(x) * normal_for(x, key)

    return view


def relative_noise(std: float) -> View:
    """Gaussian noise on vectors, in units of each one's root mean square: x + std · √(mean x²) · ε.

    So it is the same whatever the scale of the vectors, and moves all directions alike. In float32 at least.

    Raises:
        ValueError: a negative standard deviation.
    """
    if std < 0:
        raise ValueError(f"relative_noise({std}) must not be negative")

    def view(x: Tensor, key: Key) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        size = x.square().mean(-1, keepdim=True).sqrt()
        return x + std * size * normal_for(x, key)

    return view
