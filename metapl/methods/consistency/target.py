"""What the strong view is held to, made of the logits of the weak view, for `--consistency-target`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class Aim(NamedTuple):
    """The targets of a batch, `[batch, classes]` each."""

    p: Tensor
    """The distributions whose largest probability is the confidence."""
    target: Tensor
    """What the cross entropy is taken against."""


Target: TypeAlias = Callable[[Tensor, float | Tensor], Aim]
"""`target(logits, temperature)`: from logits `[batch, classes]`."""


def sharpened() -> Target:
    """softmax(logits / temperature), as in UDA (Xie et al., NeurIPS 2020)."""

    def aim(logits: Tensor, temperature: float | Tensor) -> Aim:
        p = torch.softmax(logits / temperature, dim=-1)
        return Aim(p, p)

    return aim


def soft() -> Target:
    """softmax(logits): the distribution as it is."""
    return _of_probabilities(lambda p: p)


def hard() -> Target:
    """The most probable class, with the confidence of softmax(logits), as in FixMatch (Sohn et al., NeurIPS 2020)."""
    return _of_probabilities(_most_probable)


def _of_probabilities(make: Callable[[Tensor], Tensor]) -> Target:
    def aim(logits: Tensor, temperature: float | Tensor) -> Aim:
        del temperature
        p = torch.softmax(logits, dim=-1)
        return Aim(p, make(p))

    return aim


def _most_probable(p: Tensor) -> Tensor:
    # A comparison, since torch's own one_hot looks at its data, which torch.vmap refuses.
    classes = torch.arange(p.shape[-1], device=p.device)
    return (p.argmax(dim=-1)[:, None] == classes).to(p.dtype)


CONSISTENCY_TARGETS: dict[str, Callable[[], Target]] = {"sharpened": sharpened, "soft": soft, "hard": hard}
"""The kinds by name, for `--consistency-target`."""
