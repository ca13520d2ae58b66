"""A test part for data that comes without one."""

from __future__ import annotations

import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key
from metapl.data import groups as together
from metapl.registry.errors import InputError


def hold_out(y: Tensor, share: float, key: Key, groups: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Hold out the same share of every class.

    Of a class with n examples the nearest whole number to share · n goes to the test part (halves up), at least one
    where there are two or more, and never all of them.

    Args:
        y: class indices `[examples]`, int64; −1 where nobody knows, and those stay in the pool.
        share: of each class, between 0 and 1, both ends excluded.
        key: draws which. Every class draws by its index, so that one more class leaves the other draws as they are.
        groups: `[examples]`, whose members stay on one side; their shares are then about those, see
            `metapl.data.groups.take`. Members of unknown class whose group is in the test part are in neither.

    Returns:
        The indices of the pool and of the test part, both int64 and sorted.

    Raises:
        InputError: a share outside (0, 1), or no class with two examples, or with two groups.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"test={share} must be a share of each class, more than 0 and less than 1, such as test=0.2")
    counts, order = {}, []
    for label in y[y >= 0].unique().tolist():
        members = (y == label).nonzero()[:, 0]
        counts[label] = min(max(int(share * len(members) + 0.5), 1), len(members) - 1)
        order.append(members[rng.permutation(rng.fold_in(key, label), len(members))])
    if groups is None:
        held = torch.zeros(len(y), dtype=torch.bool)
        for members, count in zip(order, counts.values(), strict=True):
            held[members[:count]] = True
    else:
        held = together.take(y, counts, torch.cat(order) if order else y, groups)
    if groups is not None and not held.any():
        raise InputError("no class has two groups, one to learn from and one to test with: give a test apart")
    if not held.any():
        raise InputError(
            "no class has two labelled examples, one to learn from and one to test with: add some, or give a test apart"
        )
    return (~held).nonzero()[:, 0], (held & (y >= 0)).nonzero()[:, 0]
