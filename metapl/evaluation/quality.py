"""How good an estimate of a vector is, from its draws. Arrays in, named tuple out.

Examples:
    >>> import torch
    >>> from metapl.evaluation import quality
    >>> truth = torch.tensor([[3.0, 4.0]])
    >>> found = quality.accuracy(2.0 * truth, truth, cosine=0.9)
    >>> found.cosine, found.projection, found.bias, found.draws_needed
    (1.0, 2.0, 1.0, 1.0)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Accuracy(NamedTuple):
    """What `accuracy` finds. With μ and σ² the mean and total variance of one draw, and t the truth."""

    draws: int
    cosine_one: float
    """The mean over draws of the cosine of one draw to t."""
    cosine_mean: float
    """The cosine of the mean of all draws to t, as measured; noise makes it smaller than the next one."""
    cosine: float
    """cos(μ, t), noise taken out and at most 1: what infinitely many draws would reach. NaN where it is not defined."""
    cosine_error: float
    """Its standard error before the cut at 1, as of all fields named so."""
    projection: float
    """⟨μ, t⟩ / |t|²: the size of what points along t. 1 without bias, and no noise inflates it."""
    projection_error: float
    norm_ratio: float
    """|μ| / |t|, noise taken out."""
    bias: float
    """|μ − t| / |t|, noise taken out: the square root of `bias_square`, and 0 where that is negative."""
    bias_error: float
    """From the bias up to where one standard error of its square leads."""
    bias_square: float
    """An unbiased estimate of |μ − t|² / |t|²; it may be negative."""
    bias_square_error: float
    variance: float
    """σ² / |t|², of one draw."""
    draws_needed: float
    """Draws whose mean has the asked-for cosine to t, a whole number or infinity."""
    draws_low: float
    """The same, one standard error of 1 / draws towards fewer."""
    draws_high: float
    """And one towards more."""


def moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """⟨E x, E y⟩ and the total covariance of x and y, from paired draws `[draws, numbers]`.

        covariance = Σ_i ⟨x_i − x̄, y_i − ȳ⟩ / (n − 1),    product = ⟨x̄, ȳ⟩ − covariance / n

    Both are unbiased: the noise of two means that share draws adds covariance / n to their product.

    Returns:
        Two vectors `[1 + draws]`: the value from all draws, then those that leave out one draw each, for the jackknife.
        A single draw counts as known without noise, and has nothing to leave out.
    """
    count, mean_x, mean_y = len(x), x.mean(0), y.mean(0)
    together = (mean_x @ mean_y)[None]
    if count == 1:
        return together, torch.zeros_like(together)
    off_x, off_y = x - mean_x, y - mean_y
    own = (off_x * off_y).sum(1)
    spread = own.sum()[None]
    # Without draw i the mean of x is x̄ − (x_i − x̄) / (n − 1).
    left = together - (off_x @ mean_y + off_y @ mean_x) / (count - 1) + own / (count - 1) ** 2
    covariance = torch.cat([spread / (count - 1), (spread - own * count / (count - 1)) / (count - 2)])
    counts = torch.cat([spread.new_tensor([count]), spread.new_full((count,), count - 1)])
    return torch.cat([together, left]) - covariance / counts, covariance


def jackknife(values: Tensor) -> float:
    """The standard error of `values[0]` from the others: √((n − 1) / n Σ_i (value without i − their mean)²).

    On the careful side for a square that is mostly noise: up to √2 times too large.
    """
    left, count = values[1:], len(values) - 1
    return math.sqrt((count - 1) / count * (left - left.mean()).square().sum().item()) if count else 0.0


def accuracy(draws: Tensor, truths: Tensor, cosine: float) -> Accuracy:
    """Compare draws of an estimate with the truth.

    With the moments of `moments` in place of expectations, so that nothing grows with the noise:

        cos(μ, t) = ⟨μ, t⟩ / (|μ||t|),    projection = ⟨μ, t⟩ / |t|²,    bias² = |μ − t|² / |t|².

    The mean of n draws has |μ|² + σ²/n as its expected square, and hence about the cosine
    cos(μ, t) / √(1 + σ² / (n |μ|²)). It is c at

        n = (σ² / |μ|²) / ((cos(μ, t) / c)² − 1)  =  σ² / (⟨μ, t⟩² / (|t|² c²) − |μ|²),

    infinity for cos(μ, t) ≤ c, and at least 1. Standard errors are by the jackknife, leaving out one draw after
    another; those of n are taken of 1 / n, which is finite.

    Args:
        draws: `[draws, numbers]`; a single one is taken to be free of noise. Else three at least.
        truths: draws of the truth made with the same randomness, whose expectation is the truth; a single one is it.
        cosine: c, in (0, 1).
    """
    draws, truths = torch.broadcast_tensors(draws, truths)
    square, variance = moments(draws, draws)
    truth, _ = moments(truths, truths)
    along, _ = moments(draws, truths)
    away, _ = moments(draws - truths, draws - truths)
    bias_square, error = (away / truth)[0].item(), jackknife(away / truth)
    bias, size = math.sqrt(max(bias_square, 0.0)), torch.clamp(square / truth, min=0.0).sqrt()[0].item()
    needed, low, high = _needed(square, variance, along / truth.sqrt(), cosine)
    limit = along / (square * truth).sqrt()
    of_draws = torch.nn.functional.cosine_similarity(draws, truths.mean(0, keepdim=True), eps=0.0)
    return Accuracy(
        draws=len(draws),
        cosine_one=of_draws.mean().item(),
        cosine_mean=_cosine(draws.mean(0), truths.mean(0)),
        cosine=max(min(limit[0].item(), 1.0), -1.0),  # in this order NaN stays
        cosine_error=jackknife(limit),
        projection=(along / truth)[0].item(),
        projection_error=jackknife(along / truth),
        norm_ratio=size,
        bias=bias,
        bias_error=math.sqrt(max(bias_square, 0.0) + error) - bias,
        bias_square=bias_square,
        bias_square_error=error,
        variance=(variance / truth)[0].item(),
        draws_needed=needed,
        draws_low=low,
        draws_high=high,
    )


def _cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


def _needed(square: Tensor, variance: Tensor, along: Tensor, cosine: float) -> tuple[float, float, float]:
    """n as in `accuracy`, with its range; `along` is ⟨μ, t⟩ / |t|."""
    # No vector is longer along t than it is, but estimates of the two lengths can say so.
    margin = torch.minimum(torch.clamp(along, min=0.0).square(), square) / cosine**2 - square
    if not variance[0] > 0.0:
        reached = 1.0 if margin[0] > 0.0 else math.inf
        return reached, reached, reached
    rate = margin / variance
    middle, error = rate[0].item(), jackknife(rate)
    needed, low, high = (math.ceil(1.0 / r) if r > 0.0 else math.inf for r in (middle, middle + error, middle - error))
    return needed, low, high


def predicted(cosine: float, noise: float, draws: float) -> float:
    """The cosine of the mean of n draws, cos(μ, t) / √(1 + noise / n), with `noise` = σ² / |μ|²."""
    return cosine / math.sqrt(1.0 + noise / draws)


def measured(draws: Tensor, truths: Tensor, together: int) -> float:
    """The cosine to the truth of the mean of so many draws, averaged over all groups of that many."""
    groups = draws[: len(draws) // together * together].reshape(-1, together, draws.shape[1]).mean(1)
    return torch.nn.functional.cosine_similarity(groups, truths.mean(0, keepdim=True)).mean().item()
