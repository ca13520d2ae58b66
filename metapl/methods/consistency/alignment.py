"""How the predictions for unlabelled examples are kept from collapsing onto a few classes, for `--alignment`.

To multiply the probabilities of every example by one ratio a class and to normalise them is to add the logarithm of the
ratio to the logits. So an alignment is a vector of `[classes]` that is added to the logits of the weak view before they
become targets. Fairness is a term of the loss instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core.types import PyTree
from metapl.methods.consistency.predictions import InitRule, Pool, Predictions, nothing, require_decay, running

SMALLEST = 1e-6
"""The least probability that a ratio is formed with."""


class Alignment(NamedTuple):
    """A rule for the marginal distribution of the predictions."""

    init: InitRule
    shift: Callable[[PyTree, Predictions], tuple[Tensor | float, PyTree]]
    """`shift(memory, predictions)`: what is added to the weak logits, `[classes]`, and the next memory."""
    penalty: Callable[[PyTree, Tensor, Tensor], Tensor] | None = None
    """`penalty(memory, strong, weights)`: a term of the loss, from logits `[batch, classes]` and weights `[batch]`."""
    targets: bool = True
    """Whether the targets are aligned, or the confidence alone that their weights depend on."""


def _log_ratio(wanted: Tensor, found: Tensor) -> Tensor:
    return wanted.to(found).clamp(min=SMALLEST).log() - found.clamp(min=SMALLEST).log()


def _mean(logits: Tensor) -> Tensor:
    return torch.softmax(logits, dim=-1).mean(dim=0)


def _even(like: Tensor, classes: int) -> Tensor:
    return torch.full((classes,), 1.0 / classes, dtype=like.dtype, device=like.device)


def none(pool: Pool) -> Alignment:
    """The predictions as they are."""
    del pool
    return Alignment(nothing, lambda memory, predictions: (0.0, memory))  # noqa: ARG005


def uniform(pool: Pool, *, targets: bool = True) -> Alignment:
    """p · prior / mean(p), normalised; the mean is that of the batch. The prior is uniform unless one is given.

    A batch whose mean is the prior stays as it is. It is distribution alignment (Berthelot et al., ReMixMatch, ICLR
    2020) with the statistics of one batch.

    Args:
        pool: the prior.
        targets: whether the targets are aligned too, or their weights alone.
    """

    def shift(memory: PyTree, predictions: Predictions) -> tuple[Tensor, PyTree]:
        return _log_ratio(pool.prior, _mean(predictions.weak)), memory

    return Alignment(nothing, shift, targets=targets)


def marginal(pool: Pool, *, decay: float = 0.992, targets: bool = True) -> Alignment:
    """p · prior / running mean(p), normalised: distribution alignment (Berthelot et al., ReMixMatch, ICLR 2020).

    The running mean is that of the steps before, and uniform before the first. The paper takes the last 128 batches;
    here it is a moving average of the same length. `targets=false` is the uniform alignment of SoftMatch (Chen et al.,
    ICLR 2023), which aligns the confidence and not the targets.

    Args:
        pool: the prior.
        decay: of the running mean.
        targets: whether the targets are aligned too, or their weights alone.

    Raises:
        ValueError: a decay that is not in [0, 1).
    """
    require_decay(decay)

    def shift(mean: Tensor, predictions: Predictions) -> tuple[Tensor, PyTree]:
        return _log_ratio(pool.prior, mean), running(mean, _mean(predictions.weak), decay)

    return Alignment(lambda like: _even(like, len(pool.prior)), shift, targets=targets)


def adamatch(pool: Pool, *, targets: bool = True) -> Alignment:
    """p · mean(p of labelled) / mean(p), normalised; both means are those of the batch.

    What the labelled examples are said to be stands for the prior. Source: Berthelot et al., *AdaMatch*, ICLR 2022.

    Args:
        pool: not needed.
        targets: whether the targets are aligned too, or their weights alone.
    """
    del pool

    def shift(memory: PyTree, predictions: Predictions) -> tuple[Tensor, PyTree]:
        return _log_ratio(_mean(predictions.labelled), _mean(predictions.weak)), memory

    return Alignment(nothing, shift, targets=targets)


class Fairness(NamedTuple):
    """What self-adaptive fairness remembers: running means over the weak views, `[classes]` each."""

    mean: Tensor
    """Of the probabilities, p̃."""
    share: Tensor
    """Of the shares of each class among the predicted classes, h̃."""


def _shares(logits: Tensor, weights: Tensor) -> Tensor:
    """The share of each class among the predicted ones, by weight, `[classes]`."""
    classes = torch.arange(logits.shape[-1], device=logits.device)
    chosen = (logits.argmax(dim=-1)[:, None] == classes).to(logits.dtype) * weights[:, None]
    return chosen.sum(dim=0) / weights.sum().clamp(min=SMALLEST)


def _normalised(values: Tensor, shares: Tensor) -> Tensor:
    """values / shares, normalised; a class without a share counts as 0."""
    found = torch.where(shares > 0, values / torch.where(shares > 0, shares, 1.0), 0.0)
    return found / found.sum().clamp(min=SMALLEST)


def fair(pool: Pool, *, weight: float = 0.05, decay: float = 0.999) -> Alignment:
    """weight · Σ_c a_c log b_c, with a = norm(p̃ / h̃) and b = norm(p̄ / h̄): self-adaptive fairness.

    p̃ and h̃ are running means, over the weak views, of the probabilities and of the shares of the predicted classes.
    p̄ and h̄ are the same of the strong views in the batch, weighted as the loss is. It is 0 where no example has weight.
    Source: Wang et al., *FreeMatch*, ICLR 2023.

    Args:
        pool: the number of classes.
        weight: of the term.
        decay: of the running means.

    Raises:
        ValueError: a negative weight, or a decay that is not in [0, 1).
    """
    require_decay(decay)
    if weight < 0:
        raise ValueError(f"weight={weight} must not be negative")

    def shift(memory: Fairness, predictions: Predictions) -> tuple[float, PyTree]:
        ones = torch.ones_like(predictions.weak[:, 0])
        mean, share = _mean(predictions.weak), _shares(predictions.weak, ones)
        return 0.0, Fairness(running(memory.mean, mean, decay), running(memory.share, share, decay))

    def penalty(memory: Fairness, strong: Tensor, weights: Tensor) -> Tensor:
        given = weights.to(strong.dtype)
        p = torch.softmax(strong, dim=-1)
        mean = (given[:, None] * p).sum(dim=0) / given.sum().clamp(min=SMALLEST)
        found = _normalised(mean, _shares(strong.detach(), given))
        logs = found.clamp(min=SMALLEST).log()
        return weight * (_normalised(memory.mean, memory.share) * logs).sum() * (given.sum() > 0)

    def init(like: Tensor) -> Fairness:
        even = _even(like, len(pool.prior))
        return Fairness(even, even)

    return Alignment(init, shift, penalty)


ALIGNMENTS: dict[str, Callable[..., Alignment]] = {
    "none": none,
    "uniform": uniform,
    "marginal": marginal,
    "adamatch": adamatch,
    "fair": fair,
}
"""The rules by name, for `--alignment NAME:key=value,…`."""
