"""An inner loss that is no quadratic, and the numbers that a loop of its steps begins with, in float64."""

import torch

from metapl.core import rng

SIZE = 3
"""Of the parameters."""


def loss(w, weights):
    return (weights * (w - 1.0).tanh() ** 2).sum() + 0.1 * (w**4).sum()


def numbers(steps):
    """The first parameters, a learning rate, and the weights of each step."""
    w, rate = rng.normal(rng.key(1), (SIZE,), torch.float64), torch.tensor(0.3, dtype=torch.float64)
    return [w, rate, rng.normal(rng.key(2), (steps, SIZE), torch.float64)]
