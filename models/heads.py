"""Classifiers without a hidden layer, for features of a pretrained network."""

from __future__ import annotations

import math

import torch
from einops.layers.torch import Rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention


class LinearFromMeans(nn.Sequential):
    """A linear layer after a rearrangement, which starts as the classifier by the nearest class mean."""

    @staticmethod
    def from_class_means(means: Tensor) -> dict[str, Tensor]:
        """W = m and b = −‖m‖²/2 for means m `[classes, *shape]`: logits −‖x − m‖²/2 up to a number that all share."""
        flat = means.flatten(1)
        return {"1.weight": flat, "1.bias": -flat.square().sum(1) / 2}


class CosineFromMeans(nn.Sequential):
    """A `Cosine` after a rearrangement, which starts with the directions of the class means."""

    @staticmethod
    def from_class_means(means: Tensor) -> dict[str, Tensor]:
        """Vectors m/‖m‖ for means m `[classes, *shape]`."""
        return {"1.weight": F.normalize(means.flatten(1), dim=1)}


def _head(kinds: dict[str, type[nn.Sequential]], start: str, layer: nn.Module) -> nn.Module:
    if start not in kinds:
        raise ValueError(f"start={start} must be {' or '.join(kinds)}")
    return kinds[start](Rearrange("batch ... -> batch (...)"), layer)


def linear(shape: tuple[int, ...], classes: int, *, bias: bool = True, start: str = "zero") -> nn.Module:
    """Inputs `[batch, *shape]`, flattened, to logits `[batch, classes]` = x Wᵀ + b; W and b start at zero.

    With the cross-entropy it is multinomial logistic regression. With `start=prototypes` it starts as the classifier by
    the nearest class mean: Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017, section 2.4.

    Raises:
        ValueError: an unknown start, or prototypes without a bias.
    """
    if start == "prototypes" and not bias:
        raise ValueError("start=prototypes needs bias=true")
    layer = nn.Linear(math.prod(shape), classes, bias=bias)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return _head({"zero": nn.Sequential, "prototypes": LinearFromMeans}, start, layer)


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


def cosine(shape: tuple[int, ...], classes: int, *, scale: float = 32.0, start: str = "zero") -> nn.Module:
    """Inputs `[batch, *shape]`, flattened, to logits `[batch, classes]`: `scale` times the cosine with each class.

    Bounded logits keep few labels from being fitted with ever more confidence, and no class gains by a longer vector or
    a bias. Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019 (there Baseline++), whose class vectors
    are divided by their length alone; here see `Cosine`. They start at zero, with `start=prototypes` as the directions
    of the class means: Qi, Brown and Lowe, "Low-Shot Learning with Imprinted Weights", CVPR 2018.

    Raises:
        ValueError: a scale that is not above 0, or an unknown start.
    """
    if not scale > 0:
        raise ValueError(f"cosine(scale={scale}) must be above 0")
    layer = Cosine(math.prod(shape), classes, scale)
    return _head({"zero": nn.Sequential, "prototypes": CosineFromMeans}, start, layer)
