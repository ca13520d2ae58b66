"""The networks of Reduced Meta Pseudo Labels: what may correct the log-probabilities of a fixed teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _Residual(nn.Module):
    def __init__(self, change: nn.Sequential) -> None:
        super().__init__()
        self.change = change

    def forward(self, log_p: Tensor) -> Tensor:
        return log_p + self.change(log_p)


class _Affine(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, log_p: Tensor) -> Tensor:
        return log_p * self.sharpness.exp() + self.bias


def affine(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Log-probabilities `[batch, classes]` to logits eᵗ · log p + b: one temperature and one bias a class.

    It starts as the identity. Few meta-parameters, so that the feedback on each is an average over all examples.

    Raises:
        ValueError: an input other than as many numbers as there are classes.
    """
    if shape != (classes,):
        raise ValueError(f"affine takes {classes} log-probabilities, not inputs of shape {list(shape)}: use mlp")
    return _Affine(classes)


def residual(shape: tuple[int, ...], classes: int, *, width: int = 128, depth: int = 4) -> nn.Module:
    """Log-probabilities `[batch, classes]` of a fixed teacher to corrected logits of that shape: log p + MLP(log p).

    `depth` hidden layers of `width` ReLU units. The last layer starts at zero, so that the calibrator starts as the
    identity. Source: Pham et al., CVPR 2021, appendix E, a five-layer perceptron of 128 units for CIFAR-10 and 512 for
    ImageNet; that it is residual is ours.

    Raises:
        ValueError: an input other than as many numbers as there are classes, or a width or depth below 1.
    """
    if shape != (classes,):
        raise ValueError(f"residual takes {classes} log-probabilities, not inputs of shape {list(shape)}: use mlp")
    if width < 1 or depth < 1:
        raise ValueError(f"residual(width={width}, depth={depth}) must both be at least 1")
    layers: list[nn.Module] = []
    features = classes
    for _ in range(depth):
        layers += [nn.Linear(features, width), nn.ReLU()]
        features = width
    last = nn.Linear(features, classes)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return _Residual(nn.Sequential(*layers, last))
