"""Dropout whose mask is a function of a key.

`torch.nn.Dropout` draws from a generator that is hidden in the process. Here every dropout layer of a pass draws from
the pass's key: the same key gives the same masks, a batch that is passed in parts gets the masks of the whole, and
`torch.vmap` over keys draws one mask a member.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from metapl.core import rng
from metapl.core.types import Key


class Noise:
    """The source of all dropout of one pass.

    Args:
        key: the pass's.
        rows: the places of the examples in a larger batch.
    """

    def __init__(self, key: Key, rows: Tensor | None = None) -> None:
        self.key, self.rows = key, rows
        self.over = False
        """Whether the pass has ended, so that what still asks is run again by `torch.utils.checkpoint`."""
        self._calls = itertools.count()
        self._of: dict[int, list[int]] = {}

    def next(self, layer: nn.Module) -> Key:
        """A key for a layer's next call; the one that it had, where the layer is run again.

        Raises:
            RuntimeError: a layer that was called several times is run again, and nothing says which call it is.
        """
        calls = self._of.setdefault(id(layer), [])
        if not self.over:
            calls.append(next(self._calls))
        elif len(calls) != 1:
            raise RuntimeError(
                "a dropout layer that a pass uses several times cannot be run again by torch.utils.checkpoint: "
                "make a layer for each use"
            )
        return rng.fold_in(self.key, calls[-1])


@contextmanager
def keyed_by(layers: Sequence[nn.Module], key: Key | None, rows: Tensor | None) -> Iterator[None]:
    """Within the block, which is a pass, these dropout layers draw from the key; without one they cannot draw."""
    noise = None if key is None else Noise(key, rows)
    for layer in layers:
        layer.__dict__["noise"] = noise
    yield
    if noise is not None:
        noise.over = True


class Dropout(nn.Module):
    """Zeroes each number with probability p in training, and scales the others by 1 / (1 − p).

    Args:
        p: the probability.
        whole: how many trailing dimensions share one draw, such as 2 for whole channels of an image.
    """

    noise: Noise | None = None
    """Of the pass that is running."""

    def __init__(self, p: float, whole: int = 0) -> None:
        super().__init__()
        self.p, self.whole = p, whole

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, ...]`, of the same shape.

        Raises:
            RuntimeError: in training without `noise`.
        """
        if not self.training or not self.p:
            return x
        if self.noise is None:
            raise RuntimeError("dropout in training needs a key: call apply(…, train=True, key=key)")
        rows = self.noise.rows
        shape = (*x.shape[: x.ndim - self.whole], *(1,) * self.whole)
        # Rows may have been folded into other dimensions, as heads of attention are; the batch comes first in these.
        count = x.shape[0] if rows is None else len(rows)
        width = math.prod(shape) // count
        drawn = rng.uniform(self.noise.next(self), (count, width), x.dtype, x.device, rows).reshape(shape)
        return x * (drawn >= self.p) / (1.0 - self.p) if self.p < 1.0 else x * 0.0


WHOLE: dict[type[nn.Module], int] = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}
"""Torch's layers that are replaced, and how many trailing dimensions share one of their draws."""


def keyed(module: nn.Module) -> nn.Module:
    """`Dropout` in place of one of torch's layers; any other module as it is."""
    return Dropout(module.p, WHOLE[type(module)]) if type(module) in WHOLE else module  # type: ignore[arg-type]
