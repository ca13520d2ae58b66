"""The consistency loss, put together from an alignment, a threshold, a kind of target and a mixing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import losses
from metapl.core.types import PyTree
from metapl.methods.consistency import alignment, mixing, target, threshold
from metapl.methods.consistency.alignment import Alignment
from metapl.methods.consistency.mixing import Mixed, Mixing
from metapl.methods.consistency.predictions import Pool, Predictions
from metapl.methods.consistency.target import Target
from metapl.methods.consistency.threshold import Threshold


class Memory(NamedTuple):
    """What the rules remember from step to step."""

    alignment: PyTree = ()
    threshold: PyTree = ()


_ANY = Pool(torch.ones(1))


class Consistency(NamedTuple):
    """The rules of a consistency loss; those of UDA (Xie et al., NeurIPS 2020) unless others are given."""

    alignment: Alignment = alignment.none(_ANY)
    threshold: Threshold = threshold.fixed(_ANY)
    target: Target = target.sharpened()
    mixing: Mixing = mixing.none()

    def init(self, like: Tensor) -> Memory:
        """What the rules remember before the first step, on the device and in the dtype of a tensor."""
        return Memory(self.alignment.init(like), self.threshold.init(like))


def consistency_loss(
    rules: Consistency,
    memory: Memory,
    predictions: Predictions,
    strong: Tensor,
    temperature: float | Tensor,
    tau: float | Tensor,
    mixed: Mixed | None = None,
) -> tuple[Tensor, Memory]:
    """mean of weight · cross_entropy(strong, target) over the whole batch, and what the rules remember next.

    With the rules of UDA it is the mean of `metapl.core.losses.uda`.

    Args:
        rules: alignment, threshold and target.
        memory: of the rules.
        predictions: what the network says of the labelled examples and of the weak view; held constant.
        strong: logits `[batch, classes]` of the strong view.
        temperature: divides the aligned logits, for a sharpened target.
        tau: the confidence that some thresholds ask for.
        mixed: what is in the strong view, if it was mixed; weighted targets are then mixed in the same shares.

    Returns:
        A scalar, differentiable in `strong` alone, and the next memory.
    """
    constant = predictions._replace(labelled=predictions.labelled.detach(), weak=predictions.weak.detach())
    shift, remembered = rules.alignment.shift(memory.alignment, constant)
    aligned = rules.target(constant.weak + shift, temperature)
    weights, thresholds = rules.threshold.weigh(memory.threshold, aligned.p, tau, constant)
    aim = aligned if rules.alignment.targets else rules.target(constant.weak, temperature)
    if mixed is None:
        total = (losses.cross_entropy(strong, aim.target) * weights).mean()
    else:  # a cross entropy is linear in its targets
        total = losses.cross_entropy(strong, mixed.of(aim.target * weights[:, None])).mean()
    if rules.alignment.penalty is not None:
        total = total + rules.alignment.penalty(remembered, strong, weights)
    return total, Memory(remembered, thresholds)
