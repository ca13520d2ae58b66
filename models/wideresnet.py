"""Wide residual network, as in the released code of Meta Pseudo Labels."""

from __future__ import annotations

import math

from einops.layers.torch import Reduce
from torch import Tensor, nn

from metapl.models import drop

STEM = 16
"""Channels of the stem, before the width factor."""


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _activation() -> nn.Module:
    return nn.LeakyReLU(0.2)


def convolution(
    channels: int, grown: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution that keeps the size, up to its stride, with weights from N(0, 2 / fan_out) and bias zero.

    fan_out is kernel² · grown / groups: what one input number feeds (He et al., ICCV 2015).
    """
    layer = nn.Conv2d(channels, grown, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)
    nn.init.normal_(layer.weight, std=math.sqrt(2.0 * groups / (kernel**2 * grown)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def dense(features: int, classes: int) -> nn.Linear:
    """The last layer as released with Meta Pseudo Labels: weights from U(±1/√classes), bias zero."""
    layer = nn.Linear(features, classes)
    nn.init.uniform_(layer.weight, -(classes**-0.5), classes**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """Two 3×3 convolutions, each after normalisation and activation, added to the input."""

    def __init__(self, channels: int, grown: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(_norm(channels), _activation())
        self.branch = nn.Sequential(
            convolution(channels, grown, 3, stride), _norm(grown), _activation(), convolution(grown, grown, 3)
        )
        changes = stride != 1 or channels != grown
        self.shortcut = convolution(channels, grown, 1, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, height, width]` to `[batch, grown, height / stride, width / stride]`."""
        active = self.before(x)
        return self.branch(active) + (x if self.shortcut is None else self.shortcut(active))


def wrn(
    shape: tuple[int, ...],
    classes: int,
    *,
    depth: int = 28,
    width: int = 2,
    dropout: float = 0.0,
) -> nn.Module:
    """WRN-`depth`-`width`: images `[batch, channels, height, width]` to logits `[batch, classes]`.

    A 3×3 stem of 16 · `width` channels, three groups of (`depth` − 4) / 6 pre-activation blocks with 16, 32 and 64
    times `width` channels, of which the second and third halve the image; global average pooling, dropout, a linear
    layer. As released: leaky ReLU of slope 0.2, BatchNorm with eps 1e-3 and momentum 0.01, a 1×1 convolution of the
    activated input as the shortcut where the shape changes, convolutions from N(0, 2 / fan_out), the linear layer from
    U(±1/√classes), its bias zero. WRN-28-2 has 1,472,170 parameters for ten classes and three channels.

    Two things are torch's: a convolution of stride 2 pads one pixel on every side (TensorFlow's pads an even image
    below and to the right), and BatchNorm's running variance is the unbiased one.

    Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016; Pham et al., "Meta Pseudo Labels", CVPR 2021.

    Raises:
        ValueError: inputs that are not images, a depth that is not 6 n + 4, a width below 1, or a dropout outside
            0 … 1.
    """
    if len(shape) != 3:
        raise ValueError(f"wrn needs images [channels, height, width], this data has shape {list(shape)}: use mlp")
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"wrn(depth={depth}) must be 6 n + 4: 10, 16, 22, 28, 34, 40, …")
    if width < 1:
        raise ValueError(f"wrn(width={width}) must be at least 1")
    channels = STEM * width
    layers: list[nn.Module] = [convolution(shape[0], channels, 3)]
    for group in range(3):
        grown = STEM * width * 2**group
        for index in range((depth - 4) // 6):
            layers.append(Block(channels, grown, stride=2 if group and not index else 1))
            channels = grown
    pool = Reduce("batch channels height width -> batch channels", "mean")
    layers += [_norm(channels), _activation(), pool, drop.dropout(dropout)]
    return nn.Sequential(*layers, dense(channels, classes))
