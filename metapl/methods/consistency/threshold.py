"""How much each unlabelled example counts in the consistency loss, by the confidence of its target, for `--threshold`.

The confidence of an example is the largest probability of its target, before it is made hard. `uda_threshold`, τ here,
is the number that several rules start from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core.types import PyTree
from metapl.methods.consistency.predictions import InitRule, Pool, Predictions, nothing, require_decay, running


class Threshold(NamedTuple):
    """A rule for the weights of the examples."""

    init: InitRule
    weigh: Callable[[PyTree, Tensor, float | Tensor, Predictions], tuple[Tensor, PyTree]]
    """`weigh(memory, p, tau, predictions)`: weights `[batch]`, from 0 to 1, of targets `[batch, classes]`; and the next
    memory."""


def none(pool: Pool) -> Threshold:
    """1: every example counts in full."""
    del pool
    return Threshold(nothing, lambda memory, p, tau, predictions: (torch.ones_like(p[:, 0]), memory))  # noqa: ARG005


def fixed(pool: Pool) -> Threshold:
    """1 where the confidence is at least τ, else 0 (Xie et al., UDA, and Sohn et al., FixMatch, NeurIPS 2020)."""
    del pool
    return Threshold(nothing, lambda memory, p, tau, predictions: (p.amax(dim=-1) >= tau, memory))  # noqa: ARG005


def relative(pool: Pool) -> Threshold:
    """1 where the confidence is at least τ · mean confidence on the labelled batch, else 0.

    Source: Berthelot et al., *AdaMatch*, ICLR 2022.
    """
    del pool

    def weigh(memory: PyTree, p: Tensor, tau: float | Tensor, predictions: Predictions) -> tuple[Tensor, PyTree]:
        labelled = torch.softmax(predictions.labelled, dim=-1).amax(dim=-1).mean()
        return p.amax(dim=-1) >= tau * labelled, memory

    return Threshold(nothing, weigh)


def flexible(pool: Pool, *, warmup: bool = True) -> Threshold:
    """1 where the confidence is at least τ · M(β_c) of the predicted class c, with M(β) = β / (2 − β), else 0.

    β_c = σ_c / max(max σ, N − Σ σ), where σ_c counts the unlabelled examples, of all N, that were said to be of class c
    when they last had a confidence of at least τ. Curriculum pseudo labelling: Zhang et al., *FlexMatch*, NeurIPS 2021.

    Memory: an integer for each example of the training pool.

    Args:
        pool: the classes, and how many examples there are.
        warmup: whether β is taken as above, so that thresholds rise slowly; without it β_c = σ_c / max σ.
    """
    classes = len(pool.prior)

    def weigh(said: Tensor, p: Tensor, tau: float | Tensor, predictions: Predictions) -> tuple[Tensor, PyTree]:
        if predictions.positions is None:
            raise ValueError("flexible() remembers each example: the batch needs its positions in the pool")
        counts = torch.zeros(classes, dtype=torch.int64, device=p.device)
        counts = counts.scatter_add(0, said.clamp(min=0), (said >= 0).to(torch.int64))
        most = torch.maximum(counts.amax(), pool.unlabelled - counts.sum()) if warmup else counts.amax()
        beta = counts.to(p.dtype) / most.clamp(min=1)
        confidence, predicted = p.max(dim=-1)
        weights = confidence >= tau * (beta / (2.0 - beta))[predicted]
        # An example may be in the batch twice. The largest class is taken, since the last one depends on the device.
        sure = torch.where(confidence >= tau, predicted, -1)
        now = torch.full_like(said, -1).scatter_reduce(0, predictions.positions, sure, "amax")
        return weights, torch.where(now >= 0, now, said)

    def init(like: Tensor) -> Tensor:
        return torch.full((pool.examples,), -1, dtype=torch.int64, device=like.device)

    return Threshold(init, weigh)


class Adaptive(NamedTuple):
    """What the self-adaptive threshold remembers."""

    overall: Tensor
    """The running mean of the confidence, a scalar."""
    mean: Tensor
    """The running mean of the probabilities, `[classes]`."""


def adaptive(pool: Pool, *, decay: float = 0.999) -> Threshold:
    """1 where the confidence is at least τ_t · p̃_c / max p̃ of the predicted class c, else 0.

    τ_t is the running mean of the confidence, and p̃ that of the probabilities, this batch included; both begin at
    1 / classes. `uda_threshold` is not needed. Source: Wang et al., *FreeMatch*, ICLR 2023.

    Args:
        pool: the number of classes.
        decay: of the running means.

    Raises:
        ValueError: a decay that is not in [0, 1).
    """
    require_decay(decay)
    classes = len(pool.prior)

    def weigh(memory: Adaptive, p: Tensor, tau: float | Tensor, predictions: Predictions) -> tuple[Tensor, PyTree]:
        del tau, predictions
        confidence, predicted = p.max(dim=-1)
        after = Adaptive(running(memory.overall, confidence.mean(), decay), running(memory.mean, p.mean(dim=0), decay))
        thresholds = after.overall * after.mean / after.mean.amax()
        return confidence >= thresholds[predicted], after

    def init(like: Tensor) -> Adaptive:
        even = torch.full((classes,), 1.0 / classes, dtype=like.dtype, device=like.device)
        return Adaptive(even[0], even)

    return Threshold(init, weigh)


class Normal(NamedTuple):
    """What the Gaussian weight remembers of the confidence; scalars."""

    mean: Tensor
    variance: Tensor


def gaussian(pool: Pool, *, decay: float = 0.999, sigmas: float = 2.0) -> Threshold:
    """exp(−min(confidence − μ, 0)² sigmas² / (2 σ²)): 1 from the mean confidence on, and less below it.

    μ and σ² are running means, this batch included, of the mean and of the unbiased variance of the confidence; they
    begin at 1 / classes and 1. `uda_threshold` is not needed. Source: Chen et al., *SoftMatch*, ICLR 2023. The formula
    of the paper has `sigmas=1`, and its released code 2.

    Args:
        pool: the number of classes.
        decay: of the running means.
        sigmas: how many standard deviations the width of the bell is taken for.

    Raises:
        ValueError: a decay that is not in [0, 1), or `sigmas` that is not positive.
    """
    require_decay(decay)
    if sigmas <= 0:
        raise ValueError(f"sigmas={sigmas} must be positive")

    def weigh(memory: Normal, p: Tensor, tau: float | Tensor, predictions: Predictions) -> tuple[Tensor, PyTree]:
        del tau, predictions
        confidence = p.amax(dim=-1)
        spread = confidence.var(correction=1) if len(confidence) > 1 else torch.zeros_like(confidence[0])
        after = Normal(running(memory.mean, confidence.mean(), decay), running(memory.variance, spread, decay))
        below = (confidence - after.mean).clamp(max=0.0)
        smallest = torch.finfo(p.dtype).tiny
        return torch.exp(-(below**2) * sigmas**2 / (2.0 * after.variance).clamp(min=smallest)), after

    def init(like: Tensor) -> Normal:
        return Normal(like.new_full((), 1.0 / len(pool.prior)), like.new_ones(()))

    return Threshold(init, weigh)


THRESHOLDS: dict[str, Callable[..., Threshold]] = {
    "none": none,
    "fixed": fixed,
    "relative": relative,
    "flexible": flexible,
    "adaptive": adaptive,
    "gaussian": gaussian,
}
"""The rules by name, for `--threshold NAME:key=value,…`."""
