"""What a method that is fitted at once is given, and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core.types import Key, Variables
from metapl.data.form import Form


class Prior(NamedTuple):
    """The share of each class, before an example is seen."""

    shares: Tensor
    """`[classes]`, float64."""
    guess: bool = False
    """Whether it is what is expected before the examples are looked at, and no more."""


class Seen(NamedTuple):
    """The examples that a method may look at: the labelled ones first, then the validation part."""

    x: Tensor
    """`[examples, features]`, as a network sees them, flattened; float32 on the CPU."""
    y: Tensor
    """Classes of the labelled and of the validation examples, int64."""
    labelled: int
    """How many are labelled."""
    left_out: int
    """Labelled and unlabelled examples for which there was no room."""
    form: Form
    key: Key
    prior: Prior | None = None
    """None if the answers stay as they come."""

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.form.classes)

    @property
    def validation(self) -> int:
        """How many are in the validation part."""
        return len(self.y) - self.labelled

    @property
    def without_validation(self) -> Tensor:
        """The labelled and the unlabelled examples, `[labelled + unlabelled, features]`."""
        return torch.cat([self.x[: self.labelled], self.x[len(self.y) :]])


class Fitted(NamedTuple):
    """What it leaves."""

    networks: Mapping[str, Variables]
    """By the names of the run's files."""
    chosen: str
    """The settings, and how they were chosen, in one line."""
