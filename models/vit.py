"""Small Vision Transformer."""

from __future__ import annotations

import torch
from einops import rearrange
from einops.layers.torch import Rearrange, Reduce
from torch import Tensor, nn

from metapl.models import drop

GROWTH = 4
"""Hidden units of a block's perceptron, over the width."""
SPREAD = 0.02
"""Standard deviation of the initial weights and positions."""


def _linear(features: int, grown: int) -> nn.Module:
    layer = nn.Linear(features, grown)
    nn.init.trunc_normal_(layer.weight, std=SPREAD)
    nn.init.zeros_(layer.bias)
    return layer


def _norm(width: int) -> nn.Module:
    return nn.LayerNorm(width, eps=1e-6)


class Positions(nn.Module):
    """Adds a learned vector to every token."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(tokens, width), std=SPREAD))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, tokens, width]` to the same."""
        return x + self.positions


class Attention(nn.Module):
    """Self-attention, softmax(q kᵀ / √d) v in each head of d features.

    Written out: the fused kernels have no forward mode, and not all of them a second derivative.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project, self.mix = _linear(width, 3 * width), _linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, tokens, width]` to the same."""
        pattern = "batch tokens (three heads features) -> three batch heads tokens features"
        q, k, v = rearrange(self.project(x), pattern, three=3, heads=self.heads).unbind()
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)
        return self.mix(rearrange(weights @ v, "batch heads tokens features -> batch tokens (heads features)"))


class Block(nn.Module):
    """Attention, then a perceptron; each after a norm, each added to its input."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.Sequential(_norm(width), Attention(width, heads), drop.dropout(dropout))
        hidden = [_linear(width, GROWTH * width), nn.GELU(), drop.dropout(dropout)]
        self.perceptron = nn.Sequential(_norm(width), *hidden, _linear(GROWTH * width, width), drop.dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, tokens, width]` to the same."""
        x = x + self.attention(x)
        return x + self.perceptron(x)


def _check(shape: tuple[int, ...], patch: int, width: int, depth: int, heads: int) -> None:
    if len(shape) != 3:
        raise ValueError(f"vit needs images [channels, height, width], this data has shape {list(shape)}: use mlp")
    if min(patch, width, depth, heads) < 1:
        raise ValueError(f"vit(patch={patch}, width={width}, depth={depth}, heads={heads}) must all be at least 1")
    if shape[1] % patch or shape[2] % patch:
        raise ValueError(f"vit(patch={patch}) must divide the image, which is {shape[1]}×{shape[2]}")
    if width % heads:
        raise ValueError(f"vit(width={width}, heads={heads}): the heads must divide the width")


def vit(
    shape: tuple[int, ...],
    classes: int,
    *,
    patch: int = 4,
    width: int = 192,
    depth: int = 6,
    heads: int = 3,
    dropout: float = 0.0,
) -> nn.Module:
    """Vision Transformer: images `[batch, channels, height, width]` to logits `[batch, classes]`.

    Patches of `patch` × `patch` pixels become tokens of `width` features by a linear map, plus learned positions;
    `depth` blocks of self-attention with `heads` heads and of a perceptron with GELU and 4 · `width` hidden units, each
    after a LayerNorm (eps 1e-6); a last LayerNorm, the mean over the tokens in place of a class token, a linear layer.
    Weights and positions start from a normal distribution of standard deviation 0.02, biases at zero. Dropout stands
    where the paper has it: on the embedded patches and after every linear layer of a block but that of q, k and v.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.

    Raises:
        ValueError: inputs that are not images, a patch that does not divide the image, heads that do not divide the
            width, a patch, width, depth or number of heads below 1, or a dropout outside 0 … 1.
    """
    _check(shape, patch, width, depth, heads)
    pattern = "batch channels (rows height) (columns width) -> batch (rows columns) (channels height width)"
    tokens = (shape[1] // patch) * (shape[2] // patch)
    return nn.Sequential(
        Rearrange(pattern, height=patch, width=patch),
        _linear(shape[0] * patch**2, width),
        Positions(tokens, width),
        drop.dropout(dropout),
        *(Block(width, heads, dropout) for _ in range(depth)),
        _norm(width),
        Reduce("batch tokens width -> batch width", "mean"),
        _linear(width, classes),
    )
