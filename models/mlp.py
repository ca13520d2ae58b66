"""Multi-layer perceptron."""

from __future__ import annotations

import math

from einops.layers.torch import Rearrange
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}


def mlp(
    shape: tuple[int, ...],
    classes: int,
    *,
    width: int = 128,
    depth: int = 2,
    activation: str = "relu",
    dropout: float = 0.0,
) -> nn.Module:
    """Inputs `[batch, *shape]`, flattened, through `depth` hidden layers of `width` units to logits `[batch, classes]`.

    Raises:
        ValueError: an activation other than relu, tanh, sigmoid, gelu, or a width or depth below 1.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"mlp(activation={activation!r}) must be one of {', '.join(ACTIVATIONS)}")
    if width < 1 or depth < 1:
        raise ValueError(f"mlp(width={width}, depth={depth}) must both be at least 1")
    layers: list[nn.Module] = [Rearrange("batch ... -> batch (...)")]
    features = math.prod(shape)
    for _ in range(depth):
        layers += [nn.Linear(features, width), ACTIVATIONS[activation]()]
        features = width
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(features, classes))
