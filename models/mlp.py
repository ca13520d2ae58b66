"""Multi-layer perceptron."""

from __future__ import annotations

import math

from einops.layers.torch import Rearrange
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}
"""The activations by name."""


def mlp(
    shape: tuple[int, ...],
    classes: int,
    *,
    width: int = 128,
    depth: int = 2,
    activation: str = "relu",
    dropout: float = 0.0,
    init: float = 0.0,
) -> nn.Module:
    """Inputs `[batch, *shape]`, flattened, through `depth` hidden layers of `width` units to logits `[batch, classes]`.

    All weights and biases start uniform in (−init, init), and with `init` 0 as torch has it, in ±1/√features.

    Raises:
        ValueError: an activation other than relu, tanh, sigmoid, gelu, a width or depth below 1, or a negative init.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"mlp(activation={activation!r}) must be one of {', '.join(ACTIVATIONS)}")
    if width < 1 or depth < 1:
        raise ValueError(f"mlp(width={width}, depth={depth}) must both be at least 1")
    if init < 0:
        raise ValueError(f"mlp(init={init}) must not be negative")
    layers: list[nn.Module] = [Rearrange("batch ... -> batch (...)")]
    features = math.prod(shape)
    for _ in range(depth):
        layers += [nn.Linear(features, width), ACTIVATIONS[activation]()]
        features = width
    if dropout:
        layers.append(nn.Dropout(dropout))
    network = nn.Sequential(*layers, nn.Linear(features, classes))
    if init:
        for parameter in network.parameters():
            nn.init.uniform_(parameter, -init, init)
    return network
