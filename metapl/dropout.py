"""Dropout whose mask is a function of a key.

`torch.nn.Dropout` draws from a generator that is hidden in the process. Here the pass of a network announces its key,
and every dropout layer in it draws from that: the same key gives the same masks, a batch that is passed in parts gets
the masks of the whole, and `torch.vmap` over keys draws one mask a member.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor, nn

from metapl import rng
from metapl.types import Key


class _Pass(NamedTuple):
    key: Key
    rows: Tensor | None
    layers: Iterator[int]


_current: ContextVar[_Pass | None] = ContextVar("pass", default=None)


@contextmanager
def drawing(key: Key, rows: Tensor | None = None) -> Iterator[None]:
    """Within the block, dropout draws from the key; `rows` are the places of the examples in a larger batch."""
    token = _current.set(_Pass(key, rows, itertools.count()))
    try:
        yield
    finally:
        _current.reset(token)


class Dropout(nn.Module):
    """Zeroes each number with probability p in training, and scales the others by 1 / (1 − p).

    Args:
        p: the probability.
        whole: how many trailing dimensions share one draw, such as 2 for whole channels of an image.
    """

    def __init__(self, p: float, whole: int = 0) -> None:
        super().__init__()
        self.p, self.whole = p, whole

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, ...]`, of the same shape.

        Raises:
            RuntimeError: in training outside of `drawing`.
        """
        if not self.training or not self.p:
            return x
        now = _current.get()
        if now is None:
            raise RuntimeError("dropout in training needs a key: call apply(…, train=True, key=key)")
        key, rows = rng.fold_in(now.key, next(now.layers)), now.rows
        shape = (*x.shape[: x.ndim - self.whole], *(1,) * self.whole)
        # Rows may have been folded into other dimensions, as heads of attention are; the batch comes first in these.
        count = x.shape[0] if rows is None else len(rows)
        drawn = rng.uniform(key, (count, math.prod(shape) // count), x.dtype, x.device, rows).reshape(shape)
        return x * (drawn >= self.p) / (1.0 - self.p) if self.p < 1.0 else x * 0.0


WHOLE: dict[type[nn.Module], int] = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}
"""Torch's layers that are replaced, and how many trailing dimensions share one of their draws."""


def keyed(module: nn.Module) -> nn.Module:
    """The module with torch's dropout layers replaced, in place where they are parts of it."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in WHOLE:
                setattr(parent, name, keyed(child))
    return Dropout(module.p, WHOLE[type(module)]) if type(module) in WHOLE else module  # type: ignore[arg-type]
