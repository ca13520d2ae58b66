"""Classifiers without a hidden layer, for features of a pretrained network."""

from __future__ import annotations

import math

import torch
from einops.layers.torch import Rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention


def linear(shape: tuple[int, ...], classes: int, *, bias: bool = True) -> nn.Module:
    """Inputs `[batch, *shape]`, flattened, to logits `[batch, classes]` = x Wᵀ + b; W and b start at zero.

    With the cross-entropy it is multinomial logistic regression.
    """
    layer = nn.Linear(math.prod(shape), classes, bias=bias)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(Rearrange("batch ... -> batch (...)"), layer)


class Cosine(nn.Module):
    """scale · x/‖x‖ · w/√(‖w‖² + 1) for the vector w of each class.

    The 1 makes it differentiable at w = 0, where the network starts and says nothing; a vector that has grown long is
    its direction alone.
    """

    def __init__(self, features: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, features))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[batch, classes]`, each within ±scale."""
        directions = self.weight * (self.weight.square().sum(1, keepdim=True) + 1).rsqrt()
        return self.scale * F.linear(F.normalize(x, dim=-1), directions)


def cosine(shape: tuple[int, ...], classes: int, *, scale: float = 32.0) -> nn.Module:
    """Inputs `[batch, *shape]`, flattened, to logits `[batch, classes]`: `scale` times the cosine with each class.

    Bounded logits keep few labels from being fitted with ever more confidence, and no class gains by a longer vector or
    a bias. Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019 (there Baseline++), whose class vectors
    are divided by their length alone; here see `Cosine`.

    Raises:
        ValueError: a scale that is not above 0.
    """
    if not scale > 0:
        raise ValueError(f"cosine(scale={scale}) must be above 0")
    return nn.Sequential(Rearrange("batch ... -> batch (...)"), Cosine(math.prod(shape), classes, scale))
