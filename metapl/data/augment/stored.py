"""Views that were made before the training, and stored with each example.

Examples:
    >>> import torch
    >>> from metapl.core import rng
    >>> from metapl.data.augment.stored import pick
    >>> x = torch.arange(3.0).expand(2, 3)[..., None]  # two examples, each with three stored views of one number
    >>> sorted(set(pick(1, 3)(x, rng.key(0)).flatten().tolist()) - {1.0, 2.0})
    []
"""

from __future__ import annotations

from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key
from metapl.data.augment.base import View, drawn_for


def pick(first: int, end: int) -> View:
    """Of examples `[batch, stored, features]` one of the stored rows first … end − 1, each as likely, for each example.

    Raises:
        ValueError: no row.
    """
    if not 0 <= first < end:
        raise ValueError(f"pick({first}, {end}) has no row to pick from")

    def view(x: Tensor, key: Key) -> Tensor:
        size, own = drawn_for(x)
        row = first + rng.randint(key, (size, 1, 1), end - first, x.device)[own]
        return x.gather(1, row.expand(-1, 1, x.shape[2]))[:, 0]

    return view
