"""Residual networks of 18 and of 50 layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from einops.layers.torch import Reduce
from torch import Tensor, nn

from metapl.models import drop
from metapl.models.convnet import GROUP_CHANNELS
from metapl.models.wideresnet import convolution

SMALL = 64
"""Images with a side below this many pixels are not shrunk by the stem."""


def _batch(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels)


def _group(channels: int) -> nn.Module:
    return nn.GroupNorm(max(1, channels // GROUP_CHANNELS), channels)


Norm = Callable[[int], nn.Module]
"""Makes the norm of so many channels."""
NORMS: dict[str, Norm] = {"batch": _batch, "group": _group}
"""The norms by name."""


def _basic(channels: int, width: int, stride: int, norm: Norm) -> nn.Sequential:
    """Two 3×3 convolutions."""
    first, second = convolution(channels, width, 3, stride), convolution(width, width, 3)
    return nn.Sequential(first, norm(width), nn.ReLU(), second, norm(width))


def _bottleneck(channels: int, width: int, stride: int, norm: Norm) -> nn.Sequential:
    """1×1, 3×3 with the stride, 1×1 to four times the width."""
    reduce, spatial = convolution(channels, width, 1), convolution(width, width, 3, stride)
    branch = nn.Sequential(reduce, norm(width), nn.ReLU(), spatial, norm(width), nn.ReLU())
    return branch.extend([convolution(width, 4 * width, 1), norm(4 * width)])


class Layout(NamedTuple):
    """What sets one depth apart from another."""

    branch: Callable[[int, int, int, Norm], nn.Sequential]
    expansion: int
    """Channels that leave a block, over its width."""
    blocks: tuple[int, ...]
    """In each of the four groups."""


LAYOUTS = {18: Layout(_basic, 1, (2, 2, 2, 2)), 50: Layout(_bottleneck, 4, (3, 4, 6, 3))}
"""The blocks of each depth."""


class Residual(nn.Module):
    """ReLU of a branch plus its input, the input through a 1×1 convolution and a norm where the shape changes.

    The branch ends with a norm whose weight starts at zero, so that every block starts as its shortcut.
    """

    def __init__(self, branch: nn.Sequential, shortcut: nn.Module) -> None:
        super().__init__()
        nn.init.zeros_(branch[-1].get_parameter("weight"))
        self.branch, self.shortcut, self.activation = branch, shortcut, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, height, width]` to `[batch, grown, height / stride, width / stride]`."""
        return self.activation(self.branch(x) + self.shortcut(x))


def _stem(shape: tuple[int, ...], width: int, norm: Norm) -> list[nn.Module]:
    if min(shape[1:]) < SMALL:
        return [convolution(shape[0], width, 3), norm(width), nn.ReLU()]
    return [convolution(shape[0], width, 7, stride=2), norm(width), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]


def _resnet(
    layers: int, shape: tuple[int, ...], classes: int, *, width: int, norm: str, dropout: float
) -> nn.Sequential:
    name = f"resnet{layers}"
    if len(shape) != 3:
        raise ValueError(f"{name} needs images [channels, height, width], this data has shape {list(shape)}: use mlp")
    if norm not in NORMS:
        raise ValueError(f"{name}(norm={norm!r}) must be 'batch' or 'group'")
    if width < 1:
        raise ValueError(f"{name}(width={width}) must be at least 1")
    layout, normalise = LAYOUTS[layers], NORMS[norm]
    parts, channels = _stem(shape, width, normalise), width
    for group, blocks in enumerate(layout.blocks):
        for index in range(blocks):
            stride, grown = (2 if group and not index else 1), width * 2**group * layout.expansion
            changes = stride != 1 or channels != grown
            shortcut = [convolution(channels, grown, 1, stride), normalise(grown)] if changes else []
            branch = layout.branch(channels, width * 2**group, stride, normalise)
            parts.append(Residual(branch, nn.Sequential(*shortcut)))
            channels = grown
    pool = Reduce("batch channels height width -> batch channels", "mean")
    return nn.Sequential(*parts, pool, drop.dropout(dropout), nn.Linear(channels, classes))


def resnet18(
    shape: tuple[int, ...],
    classes: int,
    *,
    width: int = 64,
    norm: str = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """ResNet-18: images `[batch, channels, height, width]` to logits `[batch, classes]`.

    A stem of `width` channels, four groups of two residual blocks of two 3×3 convolutions, each group but the first
    halving the image and doubling the channels; global average pooling, dropout, a linear layer. The stem is a 7×7
    convolution of stride 2 and a max pooling of stride 2; for images with a side below 64 pixels it is a 3×3
    convolution that keeps the size, as is usual for CIFAR. Convolutions start from N(0, 2 / fan_out), and the last
    norm of every block with weight zero (Goyal et al., 2017). BatchNorm is as torch has it (eps 1e-5, momentum 0.1);
    `norm=group` takes eight channels a group. 11,689,512 parameters at 3×224×224 and 1000 classes.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Raises:
        ValueError: inputs that are not images, a norm other than batch and group, a width below 1, or a dropout
            outside 0 … 1.
    """
    return _resnet(18, shape, classes, width=width, norm=norm, dropout=dropout)


def resnet50(
    shape: tuple[int, ...],
    classes: int,
    *,
    width: int = 64,
    norm: str = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """ResNet-50: images `[batch, channels, height, width]` to logits `[batch, classes]`.

    As `resnet18`, with 3, 4, 6 and 3 bottleneck blocks: 1×1, 3×3 and 1×1 convolutions, the last to four times the
    width; the stride is in the 3×3 convolution. 25,557,032 parameters at 3×224×224 and 1000 classes. The network of
    Meta Pseudo Labels on ImageNet, whose release has BatchNorm with eps 1e-3 and momentum 0.01.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Raises:
        ValueError: inputs that are not images, a norm other than batch and group, a width below 1, or a dropout
            outside 0 … 1.
    """
    return _resnet(50, shape, classes, width=width, norm=norm, dropout=dropout)
