"""Label spreading over a graph of neighbours, for every example of a pool at once.

Zhou et al., *Learning with local and global consistency*, NeurIPS 2003, on the graph of Zelnik-Manor and Perona,
*Self-tuning spectral clustering*, NeurIPS 2004, with the class masses of Zhu et al., ICML 2003.

Examples:
    >>> import torch
    >>> from metapl.methods.classical import graph
    >>> x = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    >>> y = torch.tensor([0, -1, -1, 1, -1, -1])
    >>> graph.spread(x, y, classes=2, nearest=2).argmax(1)
    tensor([0, 0, 0, 1, 1, 1])
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

ROWS = 1024
"""Examples whose distances to all others are in memory at a time."""

STEPS = 50
"""Of the iteration; what is left of the error is below alpha ^ 50."""


def neighbours(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Squared distances and indices `[examples, count]` of the nearest others of each example, the nearest first."""
    squares = x.square().sum(1)
    distances, indices = [], []
    for rows in torch.arange(len(x)).split(ROWS):
        far = squares[rows, None] - 2 * x[rows] @ x.T + squares
        far[torch.arange(len(rows)), rows] = torch.inf
        found = far.topk(count, dim=1, largest=False)
        distances.append(found.values.clamp(min=0))
        indices.append(found.indices)
    return torch.cat(distances), torch.cat(indices)


def graph(distances: Tensor, indices: Tensor) -> sparse.csr_matrix:
    """The graph D^(−1/2) W D^(−1/2) of what `neighbours` found, float32.

    W_ij = exp(−d²_ij / (s_i s_j)) where one of i and j is among the neighbours of the other, and s is the distance to
    the last of them. Rows of D are the sums of those of W.
    """
    examples, count = indices.shape
    last = distances[:, -1].sqrt()
    tiny = torch.finfo(distances.dtype).tiny
    weight = torch.exp(-distances / (last[:, None] * last[indices]).clamp(min=tiny)).clamp(min=tiny)
    ends = (np.repeat(np.arange(examples), count), indices.flatten().numpy())
    one_way = sparse.csr_matrix((weight.flatten().numpy(), ends), shape=(examples, examples))
    both = one_way.maximum(one_way.T)
    root = sparse.diags(np.asarray(both.sum(1)).ravel() ** -0.5)
    return (root @ both @ root).tocsr()


def spread_on(graph: sparse.csr_matrix, y: Tensor, classes: int, alpha: float, mass: bool = True) -> Tensor:
    """The labels spread over a graph: distributions `[examples, classes]`, float32; uniform where no label arrives.

    F ← alpha · S F + (1 − alpha) · Y, from Y, which has a 1 for each label. Then every class is divided by its mass,
    its sum over all examples, if `mass`; and every row by its sum.
    """
    start = np.zeros((len(y), classes), np.float32)
    known = np.flatnonzero(y.numpy() >= 0)
    start[known, y.numpy()[known]] = 1 - alpha
    found: np.ndarray = start
    for _ in range(STEPS):
        found = alpha * (graph @ found) + start
    if mass:
        total = found.sum(0)
        found = found / np.where(total > 0, total, 1)
    sums = found.sum(1, keepdims=True)
    shares = np.where(sums > 0, found / np.where(sums > 0, sums, 1), 1 / classes)
    return torch.from_numpy(shares.astype(np.float32))


def spread(x: Tensor, y: Tensor, *, classes: int, nearest: int = 10, alpha: float = 0.9, mass: bool = True) -> Tensor:
    """The labels of some examples spread to all of a pool: distributions `[examples, classes]`.

    Args:
        x: `[examples, components]`, scaled so that Euclidean distances mean something.
        y: classes, int64; −1 where the class is not known.
        classes: how many there are.
        nearest: neighbours of each example in the graph; all others where there are fewer.
        alpha: how much of an example's distribution comes from its neighbours, from 0 to below 1.
        mass: whether every class is divided by its mass, so that one whose labelled examples are in the midst of many
            others does not take what belongs to the others.

    Cost: the distances of all pairs.
    """
    return spread_on(graph(*neighbours(x, min(nearest, len(x) - 1))), y, classes, alpha, mass)
