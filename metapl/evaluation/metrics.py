"""Test metrics of a classifier."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from metapl.core import losses
from metapl.core.types import Buffers, Model, Params

BINS = 15
"""Bins of the calibration error."""


def top1(logits: Tensor, y: Tensor) -> float:
    """The share of examples whose largest logit is the right class, in [0, 1]."""
    return (logits.argmax(-1) == y).double().mean().item()


def nll(logits: Tensor, y: Tensor) -> float:
    """The mean negative log-likelihood, in nats."""
    return losses.cross_entropy(logits.double(), y).mean().item()


def ece(logits: Tensor, y: Tensor) -> float:
    """The expected calibration error (Guo et al., ICML 2017) over 15 bins (l, r] of equal width, in [0, 1].

    Σ_b (n_b / n) |accuracy_b − mean confidence_b|, confidence being the largest probability.
    """
    confidence, predicted = torch.softmax(logits.double(), -1).max(-1)
    right = (predicted == y).double()
    index = bins(confidence)
    gap = torch.zeros(BINS, dtype=torch.float64, device=logits.device).index_add(0, index, right - confidence)
    return (gap.abs().sum() / len(y)).item()


def edges(device: torch.device | None = None) -> Tensor:
    """The ends of the 15 bins of the calibration error, from 0 to 1, float64."""
    return torch.linspace(0, 1, BINS + 1, dtype=torch.float64, device=device)


def bins(confidence: Tensor) -> Tensor:
    """The bin of each confidence `[examples]`, float64; the upper end of a bin is in it."""
    return torch.bucketize(confidence, edges(confidence.device)[1:-1].contiguous(), right=False)


def top5(logits: Tensor, y: Tensor) -> float:
    """The share of examples whose class is among the five largest logits, in [0, 1]; 1 with five classes or fewer."""
    best = logits.topk(min(5, logits.shape[-1]), dim=-1).indices
    return (best == y[:, None]).any(-1).double().mean().item()


def balanced(logits: Tensor, y: Tensor) -> float:
    """The mean, over the classes that there are, of the share of their examples that is right, in [0, 1].

    Balanced accuracy (Brodersen et al., ICPR 2010): a class counts as much as any other, however rare it is.
    """
    found = confusion(logits, y).double()
    examples = found.sum(-1)
    return (found.diagonal() / examples)[examples > 0].mean().item()


def macro_f1(logits: Tensor, y: Tensor) -> float:
    """The mean F1 over the classes that there are or that were predicted, in [0, 1].

    F1 = 2 · right / (examples of the class + predictions of the class).
    """
    found = confusion(logits, y).double()
    either = found.sum(-1) + found.sum(-2)
    return (2.0 * found.diagonal() / either)[either > 0].mean().item()


METRICS = {"top1": top1, "top5": top5, "nll": nll, "ece": ece, "balanced": balanced, "macro_f1": macro_f1}
"""The metrics by name."""

ADDED = ("balanced", "macro_f1")
"""Of these, what runs of version 0.2.0 do not have."""


def confusion(logits: Tensor, y: Tensor) -> Tensor:
    """Counts `[classes, classes]`, int64: row the class, column what was predicted."""
    return counts(logits.argmax(-1), y, logits.shape[-1])


def counts(predicted: Tensor, y: Tensor, classes: int) -> Tensor:
    """Those of `confusion`, of classes that were predicted, `[examples]`."""
    return (y * classes + predicted).bincount(minlength=classes**2).reshape(classes, classes)


def pseudo_labels(logits: Tensor, y: Tensor, threshold: float) -> dict[str, float]:
    """How good pseudo labels are: of logits `[examples, classes]`, for classes `[examples]`, −1 where unknown.

    `coverage` is the share of examples whose confidence reaches the threshold, `accuracy` that of right labels, and
    `confident` that of right ones among the covered; the last two of examples whose class is known, NaN without any.
    """
    confidence, predicted = torch.softmax(logits.double(), -1).max(-1)
    covered, known = confidence >= threshold, y >= 0
    right = (predicted == y).double()
    return {
        "coverage": covered.double().mean().item(),
        "accuracy": right[known].mean().item(),
        "confident": right[known & covered].mean().item(),
    }


@torch.no_grad()
def predict(model: Model, params: Params, buffers: Buffers, batches: Iterable[Tensor]) -> Tensor:
    """Logits `[examples, classes]` in evaluation mode, of batches that are ready for the network, one after another."""
    return torch.cat([model.apply(params, buffers, x, train=False)[0] for x in batches])


def evaluate(logits: Tensor, y: Tensor) -> dict[str, float]:
    """All of `METRICS`, of logits `[examples, classes]` for classes `[examples]`."""
    return {name: metric(logits, y) for name, metric in METRICS.items()}
