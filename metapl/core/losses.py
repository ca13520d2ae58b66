"""Losses, one value per example `[batch]`; whoever wants a scalar takes the mean."""

from __future__ import annotations

import torch
from torch import Tensor

from metapl.registry.errors import InputError


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float | Tensor = 0.0) -> Tensor:
    """−Σ_c q_c log softmax(logits)_c, one value per example.

    Args:
        logits: `[batch, classes]`.
        targets: class indices `[batch]`, int64, or distributions `[batch, classes]`.
        smoothing: a; the target becomes (1 − a) q + a / classes. The number zero switches it off.

    Returns:
        `[batch]`, differentiable in the logits and in soft targets.

    Raises:
        InputError: logits that are no tensor.
    """
    if not isinstance(logits, Tensor):
        raise InputError(f"logits are a {type(logits).__name__}: wrap the network so that it returns one tensor")
    log_p = torch.log_softmax(logits, dim=-1)
    if targets.is_floating_point():
        chosen = (targets * log_p).sum(dim=-1)
    else:
        chosen = log_p.gather(-1, targets[..., None]).squeeze(-1)
    if not isinstance(smoothing, Tensor) and not smoothing:
        return -chosen
    return -(chosen + smoothing * (log_p.mean(dim=-1) - chosen))


def uda(weak: Tensor, strong: Tensor, temperature: float | Tensor, threshold: float | Tensor) -> Tensor:
    """The consistency loss of Unsupervised Data Augmentation (Xie et al., NeurIPS 2020), one value per example.

    Cross entropy of the strong view's prediction against the weak view's, sharpened by the temperature and held
    constant; zero where the sharpened target is less confident than the threshold. Take the mean over the whole
    batch, as the Meta Pseudo Labels release does, not over the confident examples.

    Args:
        weak: logits `[batch, classes]` of the weak view; no gradient flows into them.
        strong: logits `[batch, classes]` of the strong view.
        temperature: divides the weak logits; below 1 it sharpens.
        threshold: the least probability of the largest class of the sharpened target.

    Returns:
        `[batch]`.
    """
    target = torch.softmax(weak.detach() / temperature, dim=-1)
    confident = target.amax(dim=-1) >= threshold
    return cross_entropy(strong, target) * confident
