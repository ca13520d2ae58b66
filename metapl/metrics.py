"""Test metrics of a classifier."""

from __future__ import annotations

import torch
from torch import Tensor

from metapl import losses
from metapl.types import Buffers, Model, Params

BINS = 15


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
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64, device=logits.device)
    index = torch.bucketize(confidence, edges[1:-1].contiguous(), right=False)
    gap = torch.zeros(BINS, dtype=torch.float64, device=logits.device).index_add(0, index, right - confidence)
    return (gap.abs().sum() / len(y)).item()


METRICS = {"top1": top1, "nll": nll, "ece": ece}


@torch.no_grad()
def predict(model: Model, params: Params, buffers: Buffers, x: Tensor, batch: int = 1024) -> Tensor:
    """Logits `[examples, classes]` in evaluation mode."""
    return torch.cat([model.apply(params, buffers, part, train=False)[0] for part in x.split(batch)])


def evaluate(model: Model, params: Params, buffers: Buffers, x: Tensor, y: Tensor) -> dict[str, float]:
    """All of `METRICS` on a data set."""
    logits = predict(model, params, buffers, x)
    return {name: metric(logits, y) for name, metric in METRICS.items()}
