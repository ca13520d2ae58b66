"""A test part for data that comes without one."""

from __future__ import annotations

import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key
from metapl.registry.errors import InputError


def hold_out(y: Tensor, share: float, key: Key) -> tuple[Tensor, Tensor]:
    """Hold out the same share of every class.

    Of a class with n examples the nearest whole number to share · n goes to the test part (halves up), at least one
    where there are two or more, and never all of them.

    Args:
        y: class indices `[examples]`, int64; −1 where nobody knows, and those stay in the pool.
        share: of each class, between 0 and 1, both ends excluded.
        key: draws which. Every class draws by its index, so that one more class leaves the other draws as they are.

    Returns:
        The indices of the pool and of the test part, both int64 and sorted.

    Raises:
        InputError: a share outside (0, 1), or no class with two examples.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"test={share} must be a share of each class, more than 0 and less than 1, such as test=0.2")
    held = torch.zeros(len(y), dtype=torch.bool)
    for label in y[y >= 0].unique().tolist():
        members = (y == label).nonzero()[:, 0]
        count = min(max(int(share * len(members) + 0.5), 1), len(members) - 1)
        held[members[rng.permutation(rng.fold_in(key, label), len(members))[:count]]] = True
    if not held.any():
        raise InputError(
            "no class has two labelled examples, one to learn from and one to test with: add some, or give a test apart"
        )
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]
