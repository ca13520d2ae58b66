"""What a data source returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from metapl.data.augment import Augment


class Dataset(NamedTuple):
    """A classification data set in memory. The labels of the training pool are revealed by a `Split` only."""

    x: Tensor
    """The training pool, `[examples, ...]`, float32."""
    y: Tensor
    """Its class indices, `[examples]`, int64."""
    x_test: Tensor
    y_test: Tensor
    classes: int
    augment: Augment
