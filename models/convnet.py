"""Small convolutional network."""

from __future__ import annotations

from einops.layers.torch import Reduce
from torch import nn

GROUP_CHANNELS = 8


def _normalise(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(max(1, channels // GROUP_CHANNELS), channels)
    raise ValueError(f"convnet(norm={kind!r}) must be 'batch' or 'group'")


def convnet(
    shape: tuple[int, ...],
    classes: int,
    *,
    width: int = 32,
    depth: int = 3,
    norm: str = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """Images `[batch, channels, height, width]` to logits `[batch, classes]`.

    `depth` blocks of 3×3 convolution, normalisation and ReLU; every block but the first halves the image and doubles
    the channels, which start at `width`. Global average pooling, dropout, a linear layer.

    Raises:
        ValueError: inputs that are not images, a norm other than batch and group, or a width or depth below 1.
    """
    if len(shape) != 3:
        raise ValueError(f"convnet needs images [channels, height, width], this data has shape {list(shape)}: use mlp")
    if width < 1 or depth < 1:
        raise ValueError(f"convnet(width={width}, depth={depth}) must both be at least 1")
    layers: list[nn.Module] = []
    channels = shape[0]
    for index in range(depth):
        grown = width * 2**index
        convolution = nn.Conv2d(channels, grown, 3, stride=1 if index == 0 else 2, padding=1, bias=False)
        layers += [convolution, _normalise(norm, grown), nn.ReLU()]
        channels = grown
    layers.append(Reduce("batch channels height width -> batch channels", "mean"))
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(channels, classes))
