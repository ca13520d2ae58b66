"""Dropout of numbers and of whole branches. All draws of the networks go through `nn.Dropout` instances."""

from __future__ import annotations

from torch import Tensor, nn


def dropout(p: float) -> nn.Module:
    """`nn.Dropout(p)`; the identity, which draws nothing, for p = 0.

    Raises:
        ValueError: a probability outside 0 … 1.
    """
    return nn.Dropout(p) if p else nn.Identity()


class DropPath(nn.Module):
    """Stochastic depth: in training, zero a branch for a whole example with probability p.

    y = x · m / (1 − p) with one Bernoulli(1 − p) number m per example of x `[batch, …]`, so that the expectation is x.
    The identity in evaluation. Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.

    Raises:
        ValueError: a probability outside 0 … 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:
        """The branch, of the same shape."""
        # Ones through nn.Dropout, which scales what it keeps: whatever replaces nn.Dropout serves here too.
        return x * self.drop(x.new_ones(x.shape[0], *(1 for _ in x.shape[1:]))) if self.training else x
