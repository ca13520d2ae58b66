"""Which given labels a network doubts, although it may have learnt them by heart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

NEIGHBOURS = 10
"""Unlabelled examples that are asked about each labelled one."""

_CHUNK = 256


def of_neighbours(features: Tensor, among: Tensor, probabilities: Tensor) -> Tensor:
    """What the nearest unlabelled examples are, `[labelled, classes]`: the mean of their predicted probabilities.

    A network that has learnt a wrong label by heart says so of the example itself, and not of what is like it. Nearest
    is by the cosine of the features.

    Args:
        features: of the labelled examples, `[labelled, features]`.
        among: of the unlabelled ones, `[unlabelled, features]`, one at least.
        probabilities: that the network gives these, `[unlabelled, classes]`.
    """
    directions, count = F.normalize(among.float(), dim=1), min(NEIGHBOURS, len(among))
    found = [
        probabilities[(F.normalize(part.float(), dim=1) @ directions.T).topk(count, dim=1).indices].mean(1)
        for part in features.split(_CHUNK)
    ]
    return torch.cat(found)


def score(probabilities: Tensor, y: Tensor) -> Tensor:
    """max_{c ≠ y} p_c − p_y, `[examples]`: above 0 where another class is more probable than the label.

    The normalised margin of confident learning: Northcutt et al., "Confident Learning: Estimating Uncertainty in
    Dataset Labels", JAIR 2021.
    """
    given = probabilities.gather(-1, y[:, None])
    return probabilities.scatter(-1, y[:, None], -1.0).amax(-1) - given[:, 0]
