"""metapl: two losses and an optimiser, which θ may act on."""

import torch
from problem import Batch, Params, loss

import metapl as mp


def gradient(rate: float, steps: int, params: Params, train: Batch, held: Batch, *, method: str = "replay") -> float:
    """d held-out loss / d learning rate."""
    found = mp.hypergradient(
        lambda params, _rate, batch: loss(params, batch),
        lambda params, _rate: loss(params, held),
        lambda rate: mp.sgd(rate, momentum=0.9),
        torch.tensor(rate, dtype=torch.float64),
        params,
        [train] * steps,
        method=method,
    )
    return float(found.grads)
