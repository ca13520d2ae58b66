"""The model of networks that were fitted at once."""

from __future__ import annotations

from functools import cache

from torch import Tensor

from metapl.core.types import Buffers, Key, Model, Params
from metapl.models.fitted import Linear, Neighbours
from metapl.nn import functional


@cache
def model() -> Model:
    """The model whose parameters say which network they are of: one of votes, or a linear one, of any size."""
    linear = functional.from_module(lambda: Linear(1, 1, 1))
    votes = functional.from_module(lambda: Neighbours(1, 1, 1, 1, 1))

    def init(key: Key) -> tuple[Params, Buffers]:
        raise NotImplementedError("a classical network is fitted, see metapl.methods.classical, and has no beginning")

    def apply(
        params: Params, buffers: Buffers, x: Tensor, *, train: bool, key: Key | None = None
    ) -> tuple[Tensor, Buffers]:
        return (votes if "votes" in params else linear).apply(params, buffers, x, train=train, key=key)

    return Model(init, apply)
