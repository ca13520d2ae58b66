"""Poisson learning over a graph of neighbours, and its answers shifted so that the classes have a given share.

Labels are charges at their examples: each label adds 1 for its class, less the mean of all labels. The answer u solves
L u = charges, with the graph's Laplacian L. Where labels are few it keeps its shape, while label spreading becomes flat
away from them. Source: Calder et al., *Poisson learning*, ICML 2020.

Examples:
    >>> import torch
    >>> from metapl.methods.classical import poisson
    >>> x = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    >>> y = torch.tensor([0, -1, -1, 1, -1, -1])
    >>> poisson.answer(x, y, 2, nearest=2).argmax(1)
    tensor([0, 0, 0, 1, 1, 1])
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

ROWS = 1024
"""Examples whose distances to all others are in memory at a time."""

STEPS = 300
"""Of the random walk. A graph of some thousand examples has mixed by then."""

BALANCING = 200
"""Steps towards the shares of the classes."""


def neighbours(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Squared distances and indices `[examples, count]` of the nearest others of each example, the nearest first."""
    squares = z.square().sum(1)
    distances, indices = [], []
    for rows in torch.arange(len(z)).split(ROWS):
        far = squares[rows, None] - 2 * z[rows] @ z.T + squares
        far[torch.arange(len(rows)), rows] = torch.inf
        found = far.topk(count, dim=1, largest=False)
        distances.append(found.values.clamp(min=0))
        indices.append(found.indices)
    return torch.cat(distances), torch.cat(indices)


def affinities(distances: Tensor, indices: Tensor) -> sparse.csr_matrix:
    """W of what `neighbours` found, `[examples, examples]`, symmetric, float64.

    W = (V + Vᵀ) / 2, where V_ij = exp(−4 d²_ij / r²_i) if j is among the neighbours of i, and r_i is the distance to
    the last of them.
    """
    examples, count = indices.shape
    last = distances[:, -1:].clamp(min=torch.finfo(distances.dtype).tiny)
    weight = torch.exp(-4.0 * distances / last).double()
    ends = (np.repeat(np.arange(examples), count), indices.flatten().numpy())
    one_way = sparse.csr_matrix((weight.flatten().numpy(), ends), shape=(examples, examples))
    return (one_way + one_way.T) / 2.0


def potentials(weights: sparse.csr_matrix, y: Tensor, classes: int) -> Tensor:
    """u after `STEPS` steps of u ← D⁻¹ (W u + charges), from 0: `[examples, classes]`, float64.

    Args:
        weights: W, symmetric.
        y: classes `[examples]`, int64; −1 where the class is not known.
        classes: how many there are.

    Cost: `STEPS` products of W with a matrix of `classes` columns.
    """
    known = np.flatnonzero(y.numpy() >= 0)
    charges = np.zeros((len(y), classes))
    charges[known, y.numpy()[known]] = 1.0
    charges[known] -= charges[known].mean(0)
    inverse = sparse.diags(1.0 / np.asarray(weights.sum(1)).ravel())
    walk, start = (inverse @ weights).tocsr(), inverse @ charges
    found = np.zeros_like(charges)
    for _ in range(STEPS):
        found = walk @ found + start
    return torch.from_numpy(found)


def balanced(logits: Tensor, prior: Tensor) -> Tensor:
    """softmax(logits + b), with the b of `[classes]` for which the mean over all examples is the prior.

    The fixed point of b ← b + log prior − log mean(p), after `BALANCING` steps.
    """
    bias = torch.zeros_like(prior)
    for _ in range(BALANCING):
        bias = bias + prior.log() - torch.softmax(logits + bias, dim=1).mean(0).clamp(min=1e-12).log()
    return torch.softmax(logits + bias, dim=1)


def answer(
    z: Tensor, y: Tensor, classes: int, prior: Tensor | None = None, *, nearest: int = 10, temperature: float = 0.3
) -> Tensor:
    """Distributions `[examples, classes]`, float64, of a whole pool.

    Args:
        z: `[examples, components]`, scaled so that Euclidean distances mean something.
        y: classes, int64; −1 where the class is not known.
        classes: how many there are.
        prior: the share of each class, `[classes]`, that the answers are shifted to; None leaves them as they are.
        nearest: neighbours of each example in the graph.
        temperature: divides the potentials, in units of their standard deviation.
    """
    found = potentials(affinities(*neighbours(z, min(nearest, len(z) - 1))), y, classes)
    logits = found / (temperature * found.std().clamp(min=1e-12))
    return torch.softmax(logits, dim=1) if prior is None else balanced(logits, prior)
