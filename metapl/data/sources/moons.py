"""Two interleaving half circles."""

from __future__ import annotations

import torch

from metapl.data.augment import base
from metapl.data.form import Form
from metapl.data.sources.base import Dataset


def moons(*, points: int = 2000, noise: float = 0.1, jitter: float = 0.1) -> Dataset:
    """Two moons (`sklearn.datasets.make_moons`), scaled to mean 0 and standard deviation 1.

    Args:
        points: in the training pool, both moons together; the test set has as many, drawn apart.
        noise: standard deviation of the points about their moon, in the moons' radius.
        jitter: standard deviation of the strong view's noise, after scaling; the weak view is the point itself.

    Raises:
        ValueError: fewer than 2 points, or a negative jitter or noise.
    """
    if points < 2:
        raise ValueError(f"moons(points={points}) must be at least 2")
    from sklearn.datasets import make_moons  # noqa: PLC0415 - a second to import, and only this source needs it

    x, y = make_moons(n_samples=2 * points, noise=noise, random_state=0)
    x = torch.as_tensor(x, dtype=torch.float32)
    y = torch.as_tensor(y, dtype=torch.int64)
    mean, std = x[:points].mean(0), x[:points].std(0)
    x = (x - mean) / std
    views = base.Augment(weak=base.identity, strong=base.noise(jitter))
    form = Form("arrays", (2,), ("upper", "lower"), {"mean": mean.tolist(), "std": std.tolist()})
    return Dataset(x[:points], y[:points], x[points:], y[points:], views, form)
