"""Small convolutional network."""

from __future__ import annotations

from einops import rearrange
from einops.layers.torch import Reduce
from torch import Tensor, nn

GROUP_CHANNELS = 8
"""Channels of one group of GroupNorm."""


def _normalise(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(max(1, channels // GROUP_CHANNELS), channels)
    raise ValueError(f"convnet(norm={kind!r}) must be 'batch' or 'group'")


class ChannelsLast(nn.Module):
    """Images `[batch, channels, height, width]` as they are, but with the channels last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        """The same images. `torch.vmap` knows no `memory_format`, hence the two permutations."""
        last = rearrange(x, "batch channels height width -> batch height width channels").contiguous()
        return rearrange(last, "batch height width channels -> batch channels height width")


def convnet(  # noqa: PLR0913 - one option a parameter
    shape: tuple[int, ...],
    classes: int,
    *,
    width: int = 32,
    depth: int = 3,
    norm: str = "batch",
    downsample: str = "stride",
    shrink: int = 1,
    channels_last: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """Images `[batch, channels, height, width]` to logits `[batch, classes]`.

    `depth` blocks of 3×3 convolution, normalisation and ReLU; every block but the first halves the image and doubles
    the channels, which start at `width`. Global average pooling, dropout, a linear layer. The image is halved by the
    stride of the block's convolution, or, with `downsample="max"`, by a 2×2 max pooling before it: the same parameters
    and multiplications. With `shrink` the network sees means over squares of so many pixels a side. `channels_last` is
    the layout of the images in memory, in which convolutions of few channels are faster on a CPU.

    Raises:
        ValueError: inputs that are not images, a norm other than batch and group, a downsample other than stride and
            max, a width or depth below 1, or a shrink of more pixels than there are.
    """
    if len(shape) != 3:
        raise ValueError(f"convnet needs images [channels, height, width], this data has shape {list(shape)}: use mlp")
    if width < 1 or depth < 1:
        raise ValueError(f"convnet(width={width}, depth={depth}) must both be at least 1")
    if downsample not in ("stride", "max"):
        raise ValueError(f"convnet(downsample={downsample!r}) must be 'stride' or 'max'")
    if not 1 <= shrink <= min(shape[1:]):
        raise ValueError(f"convnet(shrink={shrink}) must be within 1 … {min(shape[1:])}, the shorter side")
    layers: list[nn.Module] = [nn.AvgPool2d(shrink)] if shrink > 1 else []
    layers += [ChannelsLast()] if channels_last else []
    channels = shape[0]
    for index in range(depth):
        grown = width * 2**index
        if index and downsample == "max":
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        stride = 2 if index and downsample == "stride" else 1
        convolution = nn.Conv2d(channels, grown, 3, stride=stride, padding=1, bias=False)
        layers += [convolution, _normalise(norm, grown), nn.ReLU()]
        channels = grown
    layers.append(Reduce("batch channels height width -> batch channels", "mean"))
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(channels, classes))
