"""One number that makes the probabilities of a classifier agree with how often it is right: the temperature.

Examples:
    >>> import torch
    >>> from metapl.evaluation import temperature
    >>> logits = torch.tensor([[4.0, 0.0]] * 10)  # sure of the first class, and right seven times of ten
    >>> found = temperature.fit(logits, torch.tensor([0] * 7 + [1] * 3))
    >>> found > 2
    True
"""

from __future__ import annotations

import torch
from torch import Tensor

from metapl.core import losses
from metapl.evaluation import metrics

WIDEST = 4.0
"""log T is looked for between −4 and 4."""

STEPS = 60
"""Halvings of the interval: after them it has the width of a rounding error."""


def fit(logits: Tensor, y: Tensor) -> float:
    """The T that minimises Σ cross-entropy(logits / T, y) + (log T)² / 2, for logits `[examples, classes]`.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) with a prior: log T is
    standard normal before anything is seen, without which a few examples that are all right would give T = 0. The
    prediction, the largest logit, stays what it is. The derivative with respect to log T has one zero, which is found
    by halving an interval; cost: 60 passes over the logits.

    Args:
        logits: of examples that the network has not learnt from.
        y: their classes, `[examples]`.
    """
    low, high = -WIDEST, WIDEST
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(logits.double(), y, middle) < 0 else (low, middle)
    return float(torch.tensor((low + high) / 2).exp())


def calibrated(validation: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict[str, float]:
    """The `temperature` of a network by validation examples, and `nll` and `ece` of test examples with it.

    Args:
        validation: logits `[examples, classes]` and classes `[examples]`.
        test: likewise.
    """
    found = fit(*validation)
    logits, y = test
    return {"temperature": found, **{name: metrics.METRICS[name](logits / found, y) for name in ("nll", "ece")}}


def _slope(logits: Tensor, y: Tensor, log_t: float) -> float:
    """The derivative of the objective with respect to log T."""
    at = torch.tensor(log_t, dtype=torch.float64, device=logits.device, requires_grad=True)
    objective = losses.cross_entropy(logits * torch.exp(-at), y).sum() + at.square() / 2
    return float(torch.autograd.grad(objective, at)[0])
