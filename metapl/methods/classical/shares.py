"""The shares of the classes: estimated from answers of which nobody knows the prior, and answers shifted to them.

answers ─► shares h of the most likely classes ─► shrunk towards what is expected ─► answers shifted to that
"""

from __future__ import annotations

import torch
from torch import Tensor

BALANCING = 200
"""The most steps towards the shares of the classes."""

CLOSE = 1e-9
"""Relative error of the shares at which they are there."""

NOISE = 0.1
"""The divergence that the shares of answers have from the truth with one label a class; of n labels, a part of n.

Of answers on data whose classes are equally frequent (digits, image segments, letters, newsgroups) it is 0.04 to 0.12.
"""

RARE = 1e-4
"""The least share of a class."""


def shrunk(logits: Tensor, expected: Tensor, labels: float) -> Tensor:
    """w · h + (1 − w) · expected, `[classes]`, float64, with w = max(0, 1 − `NOISE` / (labels · KL(h ‖ expected))).

    h are the shares of the most likely classes. Where they are no further from what is expected than noise would take
    them, that stays; where they are far from it, they count. It is the positive part of James and Stein's estimator.

    Args:
        logits: `[examples, classes]`.
        expected: shares, `[classes]`, none of them 0.
        labels: labels a class, that the answers were learnt from.
    """
    found = logits.argmax(dim=1).bincount(minlength=logits.shape[1]).double() / len(logits)
    divergence = torch.special.xlogy(found, found / expected).sum()
    weight = (1.0 - NOISE / (labels * divergence.clamp(min=1e-12))).clamp(min=0.0)
    shares = (weight * found + (1.0 - weight) * expected).clamp(min=RARE)
    return shares / shares.sum()


def shifted(logits: Tensor, wanted: Tensor) -> Tensor:
    """log softmax(logits + b), with the b of `[classes]` for which the mean over all examples is what is wanted.

    b minimises the convex mean logsumexp(logits + b) − wanted · b. Newton's step is taken where it halves what is
    missing, else that of iterative scaling, b ← b + log wanted − log mean(p), which always brings the mean nearer; up
    to `BALANCING` steps, or until b is `CLOSE`.

    Args:
        logits: `[examples, classes]`.
        wanted: the share of each class, `[classes]`.

    Cost: a softmax of all logits, and a product of `[classes, examples]` with its transpose, for each of about 6 steps.
    """
    bias = torch.zeros_like(wanted)
    p = torch.softmax(logits, dim=1)
    missing = _missing(p, wanted)
    for _ in range(BALANCING):
        if missing.abs().max() < CLOSE:
            break
        for step in (_newton(p, wanted), missing):
            tried = torch.softmax(logits + bias + step, dim=1)
            left = _missing(tried, wanted)
            if step is missing or left.abs().max() < missing.abs().max() / 2:
                break
        bias, p, missing = bias + step, tried, left
    return torch.log_softmax(logits + bias, dim=1)


def _missing(p: Tensor, wanted: Tensor) -> Tensor:
    """log wanted − log mean(p)."""
    return wanted.log() - p.mean(0).clamp(min=1e-12).log()


def _newton(p: Tensor, wanted: Tensor) -> Tensor:
    """Newton's step; the same number added to every b changes nothing, and is held at none."""
    mean = p.mean(0)
    curvature = mean.diag() - p.T @ p / len(p)
    step: Tensor = torch.linalg.lstsq(curvature + 1 / len(wanted), wanted - mean, driver="gelsd").solution
    return step
