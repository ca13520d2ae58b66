"""Learning to reweight: an example counts as far as it helps on a few clean ones (Ren et al., ICML 2018).

Run it as `python examples/reweighting.py`; the digits come with scikit-learn.
"""

from __future__ import annotations

from typing import Any

import flipped
import torch
import weighted
from torch import Tensor

import metapl as mp


def weights(model: mp.Model, data: flipped.Digits, params: Any, x: Tensor, y: Tensor) -> Tensor:
    """w ∝ max(0, −∂ clean loss / ∂ε) at ε = 0, where ε weighs the examples in one step of gradient descent."""

    def inner(params: Any, eps: Tensor, batch: Any) -> Tensor:
        return eps @ weighted.losses(model, params, x, y)

    def outer(params: Any, eps: Tensor) -> Tensor:
        return weighted.losses(model, params, data.clean_x, data.clean_y).mean()

    found = mp.hypergradient(inner, outer, mp.sgd(weighted.RATE), torch.zeros_like(x[:, 0]), params, [()])
    helpful = (-found.grads).clamp(min=0)
    return helpful / helpful.sum().clamp(min=1e-12)


def reweighted(model: mp.Model, data: flipped.Digits) -> tuple[weighted.Weigh, Any]:
    """The method as training takes it; it keeps no memory."""
    return lambda memory, params, x, y: (weights(model, data, params, x, y), memory), ()


if __name__ == "__main__":
    weighted.compare("learning to reweight", reweighted)
