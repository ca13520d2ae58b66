"""EfficientNet B0 … B8 and L2, and the wide B6 of Meta Pseudo Labels."""

from __future__ import annotations

import math
from typing import NamedTuple

from einops.layers.torch import Reduce
from torch import Tensor, nn

from metapl.models import drop
from metapl.models.resnet import SMALL
from metapl.models.wideresnet import convolution, dense
from metapl.registry.errors import unknown


class Size(NamedTuple):
    """One row of the published table."""

    width: float
    """Factor on the channels."""
    depth: float
    """Factor on the blocks of a stage."""
    side: int
    """Pixels a side that it was published for; the network takes others too."""
    dropout: float


SIZES = {
    "b0": Size(1.0, 1.0, 224, 0.2),
    "b1": Size(1.0, 1.1, 240, 0.2),
    "b2": Size(1.1, 1.2, 260, 0.3),
    "b3": Size(1.2, 1.4, 300, 0.3),
    "b4": Size(1.4, 1.8, 380, 0.4),
    "b5": Size(1.6, 2.2, 456, 0.4),
    "b6": Size(1.8, 2.6, 528, 0.5),
    "b7": Size(2.0, 3.1, 600, 0.5),
    "b8": Size(2.2, 3.6, 672, 0.5),
    "l2": Size(4.3, 5.3, 800, 0.5),
    "b6-wide": Size(5.0, 2.6, 800, 0.5),
}
"""The published sizes, and the wide B6 of Meta Pseudo Labels."""


class Stage(NamedTuple):
    """One stage of B0."""

    expansion: int
    kernel: int
    stride: int
    channels: int
    blocks: int


STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
"""The stages of B0."""
STEM, HEAD = 32, 1280
"""Channels of B0 before the first stage and after the last."""
KEPT = (1, 2)
"""Stages that keep the size of a small image."""


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Excite(nn.Module):
    """Squeeze and excitation: a factor in 0 … 1 for each channel, from the means of all (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        mean = Reduce("batch channels height width -> batch channels 1 1", "mean")
        squeeze, excite = convolution(channels, hidden, bias=True), convolution(hidden, channels, bias=True)
        self.gate = nn.Sequential(mean, squeeze, nn.SiLU(), excite, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, height, width]` to the same."""
        return x * self.gate(x)


class Block(nn.Module):
    """Mobile inverted bottleneck: expand, a depthwise convolution, squeeze and excitation, project.

    The input is added, and the rest dropped for whole examples with probability `drop_path`, where the shape stays.
    """

    def __init__(self, channels: int, grown: int, stage: Stage, stride: int, drop_path: float) -> None:
        super().__init__()
        hidden = channels * stage.expansion
        layers: list[nn.Module] = []
        if stage.expansion > 1:
            layers += [convolution(channels, hidden), _norm(hidden), nn.SiLU()]
        layers += [convolution(hidden, hidden, stage.kernel, stride, groups=hidden), _norm(hidden), nn.SiLU()]
        layers += [Excite(hidden, max(1, channels // 4)), convolution(hidden, grown), _norm(grown)]
        self.stays = stride == 1 and channels == grown
        if self.stays and drop_path:
            layers.append(drop.DropPath(drop_path))
        self.branch = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, height, width]` to `[batch, grown, height / stride, width / stride]`."""
        return x + self.branch(x) if self.stays else self.branch(x)


def _channels(channels: int, factor: float) -> int:
    """Scaled and rounded to a multiple of eight, up where rounding would take more than a tenth."""
    scaled = channels * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _blocks(size: Size, small: bool, drop_path: float) -> list[nn.Module]:
    repeats = [math.ceil(stage.blocks * size.depth) for stage in STAGES]
    blocks: list[nn.Module] = []
    channels = _channels(STEM, size.width)
    for number, (stage, repeat) in enumerate(zip(STAGES, repeats, strict=True)):
        grown = _channels(stage.channels, size.width)
        for index in range(repeat):
            stride = 1 if index or (small and number in KEPT) else stage.stride
            blocks.append(Block(channels, grown, stage, stride, drop_path * len(blocks) / sum(repeats)))
            channels = grown
    return blocks


def _size(name: str, width: float, depth: float, dropout: float) -> Size:
    if name not in SIZES:
        raise unknown("size of efficientnet", name, SIZES)
    if not (width > 0 and depth > 0):
        raise ValueError(f"efficientnet(width={width}, depth={depth}) must both be positive")
    published = SIZES[name]
    return Size(
        published.width * width, published.depth * depth, published.side, published.dropout if dropout < 0 else dropout
    )


def efficientnet(
    shape: tuple[int, ...],
    classes: int,
    *,
    size: str = "b0",
    width: float = 1.0,
    depth: float = 1.0,
    dropout: float = -1.0,
    drop_path: float = 0.2,
) -> nn.Module:
    """EfficientNet: images `[batch, channels, height, width]` to logits `[batch, classes]`.

    A 3×3 stem of stride 2, seven stages of mobile inverted bottlenecks with squeeze and excitation, a 1×1 convolution,
    global average pooling, dropout, a linear layer; SiLU throughout, BatchNorm with eps 1e-3 and momentum 0.01. For
    images with a side below 64 pixels the stem and the second and third stage keep the size, as in the release of Meta
    Pseudo Labels for CIFAR: the last features then have a quarter of the side, not a thirty-second. Convolutions start
    from N(0, 2 / fan_out), the linear layer from U(±1/√classes). Padding is the same on every side, where TensorFlow
    pads an even image more below and to the right.

    Args:
        shape: channels, height and width of one image.
        classes: number of them.
        size: b0 … b8, l2, or b6-wide of Meta Pseudo Labels: B6 with the width factor 5.0, as the paper says, and with
            depth factor 2.6 and 800 pixels, as `efficientnet-b6-mpl` of the release has it. These factors make
            316,649,180 parameters, the paper speaks of 390 million; what else differs is not published.
        width: times the factor of the size on the channels, which are rounded to multiples of eight.
        depth: times the factor of the size on the blocks of a stage, which are rounded up.
        dropout: probability before the last layer; negative for that of the size, 0.2 for b0 up to 0.5.
        drop_path: a block is dropped for a whole example with a probability that grows from 0 at the first of n blocks
            to `drop_path` · (n − 1) / n at the last. 0.2 in the paper; the release of Meta Pseudo Labels has 0.

    Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; L2 from Xie et
    al., "Self-training with Noisy Student improves ImageNet classification", CVPR 2020.

    Raises:
        ValueError: inputs that are not images, an unknown size, a width or depth that is not positive, or a probability
            above 1.
    """
    if len(shape) != 3:
        raise ValueError(
            f"efficientnet needs images [channels, height, width], this data has shape {list(shape)}: use mlp"
        )
    if not 0 <= drop_path <= 1:
        raise ValueError(f"efficientnet(drop_path={drop_path}) must be between 0 and 1")
    scaled, small = _size(size, width, depth, dropout), min(shape[1:]) < SMALL
    stem, last = _channels(STEM, scaled.width), _channels(STAGES[-1].channels, scaled.width)
    head = _channels(HEAD, scaled.width)
    layers: list[nn.Module] = [convolution(shape[0], stem, 3, stride=1 if small else 2), _norm(stem), nn.SiLU()]
    layers += _blocks(scaled, small, drop_path)
    layers += [convolution(last, head), _norm(head), nn.SiLU()]
    layers += [Reduce("batch channels height width -> batch channels", "mean"), drop.dropout(scaled.dropout)]
    return nn.Sequential(*layers, dense(head, classes))
