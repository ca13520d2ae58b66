"""The mean of the labelled examples of each class, from which a network may start."""

from __future__ import annotations

import torch
from torch import Tensor

from metapl.data.examples import subset
from metapl.data.loader import in_order
from metapl.data.sources import Dataset
from metapl.data.split import Split


def class_means(data: Dataset, split: Split) -> Tensor:
    """Means `[classes, *shape]` of the labelled examples as a network sees them; zero for a class without any."""
    y = data.y[split.labelled.to(data.y.device)]
    x = torch.cat([*in_order(subset(data.x, split.labelled), y.device, data.augment.prepare)])
    sums = torch.zeros(data.classes, *x.shape[1:], dtype=x.dtype, device=x.device).index_add(0, y, x)
    counts = torch.bincount(y, minlength=data.classes).clamp(min=1)
    return sums / counts.view(-1, *[1] * (x.ndim - 1))
