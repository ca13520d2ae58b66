"""Networks that a classical method fits at once: linear logits, and votes of neighbours, of scaled inputs.

Their sizes follow from what they were fitted to, so that they are read from their tensors and not typed by a user.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

LEAST = 1e-7
"""The least share of the votes whose logarithm is taken."""

MOST = 20_000
"""The most examples that are stored."""


class Scaled(nn.Module):
    """Inputs `[batch, *shape]` as a classical method sees them, `[batch, components]`.

    y = x · gain + shift, y / |y| ^ power, and (y − centre) @ projection. A power of 1 makes the length one.
    """

    gain: Tensor
    shift: Tensor
    power: Tensor
    centre: Tensor
    projection: Tensor

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        self.register_buffer("gain", torch.ones(features))
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("power", torch.zeros(()))
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("projection", torch.eye(features, components))

    def before(self, x: Tensor) -> Tensor:
        """y / |y| ^ power, `[batch, features]`: before it is centred and projected."""
        y = x.flatten(1).to(self.gain) * self.gain + self.shift
        length = torch.linalg.vector_norm(y, dim=1, keepdim=True)
        return y / torch.where(length > 0, length, 1.0) ** self.power

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, components]`."""
        return (self.before(x) - self.centre) @ self.projection


class Linear(nn.Module):
    """Logits that are linear in the scaled inputs."""

    def __init__(self, features: int, classes: int, components: int) -> None:
        super().__init__()
        self.scaled = Scaled(features, components)
        self.classifier = nn.Linear(components, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[batch, classes]`."""
        return self.classifier(self.scaled(x))


class Neighbours(nn.Module):
    """The logarithm of the votes of the nearest stored examples, by Euclidean distance of the scaled inputs."""

    examples: Tensor
    ranks: Tensor

    def __init__(self, features: int, classes: int, examples: int, nearest: int, components: int) -> None:
        super().__init__()
        self.scaled = Scaled(features, components)
        self.register_buffer("examples", torch.zeros(examples, components))
        self.register_buffer("ranks", torch.full((nearest,), 1 / nearest))
        self.votes = nn.Parameter(torch.full((examples, classes), 1 / classes))

    def forward(self, x: Tensor) -> Tensor:
        """log Σ_r ranks[r] · votes[the r-th nearest example], `[batch, classes]`."""
        scaled = self.scaled(x)
        far = self.examples.square().sum(1) - 2 * scaled @ self.examples.T  # but for |x|², the same for all examples
        nearest = far.topk(len(self.ranks), dim=1, largest=False).indices
        found = (self.votes[nearest] * self.ranks[:, None]).sum(1)
        return found.clamp(min=LEAST).log()


def scaled_linear(shape: tuple[int, ...], classes: int, *, components: int = 0) -> nn.Module:
    """Logits linear in the inputs after a fixed scaling and projection, as a logistic regression has them.

    Args:
        shape: of one example.
        classes: number of them.
        components: that the inputs are projected to; 0 for as many as there are features.

    Raises:
        ValueError: a negative number of components, or more than features.
    """
    features = math.prod(shape)
    return Linear(features, classes, _components("scaled-linear", features, components))


def neighbours(
    shape: tuple[int, ...], classes: int, *, examples: int = 1, nearest: int = 1, components: int = 0
) -> nn.Module:
    """Votes of the nearest stored examples after a fixed scaling and projection; the logits are their logarithm.

    Args:
        shape: of one example.
        classes: number of them.
        examples: that are stored.
        nearest: how many of them vote.
        components: that the inputs are projected to; 0 for as many as there are features.

    Raises:
        ValueError: no examples or more than `MOST`, more that vote than there are, a number of components as of
            `scaled_linear`.
    """
    if examples > MOST:
        raise ValueError(f"neighbours(examples={examples}) must be at most {MOST}")
    if not 1 <= nearest <= examples:
        raise ValueError(f"neighbours(nearest={nearest}, examples={examples}): 1 ≤ nearest ≤ examples must hold")
    features = math.prod(shape)
    return Neighbours(features, classes, examples, nearest, _components("neighbours", features, components))


def _components(name: str, features: int, components: int) -> int:
    if not 0 <= components <= features:
        raise ValueError(f"{name}(components={components}) must be at most the {features} features, or 0 for all")
    return components or features


def text(tensors: Mapping[str, Tensor]) -> str:
    """How `metapl.models.build` is to be called for the network of these tensors.

    Of tensors that belong to neither it is a text that does not fit them.
    """
    components = _size(tensors, "scaled.projection", 1)
    if "votes" not in tensors:
        return f"scaled-linear:components={components}"
    sizes = f"examples={_size(tensors, 'votes', 0)},nearest={_size(tensors, 'ranks', 0)}"
    return f"neighbours:{sizes},components={components}"


def _size(tensors: Mapping[str, Tensor], name: str, axis: int) -> int:
    return tensors[name].shape[axis] if name in tensors and tensors[name].ndim > axis else 0
