"""Poisson learning over a graph of neighbours.

Labels are charges at their examples: each label adds 1 for its class, less the mean of all labels. The answer u solves
L u = charges, with the graph's Laplacian L. Where labels are few it keeps its shape, while label spreading becomes flat
away from them. Source: Calder et al., *Poisson learning*, ICML 2020.

Examples:
    >>> import torch
    >>> from metapl.methods.classical import poisson
    >>> x = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    >>> y = torch.tensor([0, -1, -1, 1, -1, -1])
    >>> poisson.potentials(poisson.graph(x, nearest=2), poisson.charges(y, 2)).argmax(1)
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


def graph(z: Tensor, nearest: int) -> sparse.csr_matrix:
    """The `affinities` of some examples `[examples, components]` to at most so many neighbours of each."""
    return affinities(*neighbours(z, min(nearest, len(z) - 1)))


def charges(y: Tensor, classes: int) -> Tensor:
    """1 for the class of each labelled example, less their mean; 0 for all others: `[examples, classes]`, float64.

    Args:
        y: classes `[examples]`, int64; −1 where the class is not known.
        classes: how many there are.
    """
    found = torch.zeros(len(y), classes, dtype=torch.float64)
    known = y >= 0
    found[known] = torch.nn.functional.one_hot(y[known], classes).double()
    found[known] -= found[known].mean(0)
    return found


def potentials(weights: sparse.csr_matrix, charged: Tensor) -> Tensor:
    """u after `STEPS` steps of u ← D⁻¹ (W u + charges), from 0: `[examples, columns]`, float64.

    Args:
        weights: W, symmetric.
        charged: the charges, `[examples, columns]`. Columns are independent of each other.

    Cost: `STEPS` products of W with a matrix of so many columns.
    """
    inverse = sparse.diags(1.0 / np.asarray(weights.sum(1)).ravel())
    walk, start = (inverse @ weights).tocsr(), inverse @ charged.numpy()
    found = np.zeros_like(start)
    for _ in range(STEPS):
        found = walk @ found + start
    return torch.from_numpy(found)


def logits(found: Tensor, temperature: float = 0.3) -> Tensor:
    """log softmax of potentials `[examples, classes]`, divided by `temperature` of their standard deviations."""
    return torch.log_softmax(found / (temperature * found.std().clamp(min=1e-12)), dim=1)
