"""Meta-Weight-Net: a small network learns how much an example counts, given its loss (Shu et al., NeurIPS 2019).

Run it as `python examples/meta_weight_net.py`; the digits come with scikit-learn.
"""

from __future__ import annotations

from typing import Any

import flipped
import weighted
from torch import Tensor, nn

import metapl as mp


def net() -> nn.Module:
    """From the loss of an example, `[batch, 1]`, to its weight between 0 and 1."""
    return nn.Sequential(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 1), nn.Sigmoid())


def weights(weigher: mp.Model, theta: Any, losses: Tensor) -> Tensor:
    """The weight of every example, divided by their number; losses are data here, as in the paper's program."""
    return weigher.apply(theta, {}, losses.detach()[:, None], train=True)[0][:, 0] / len(losses)


def meta_gradient(
    models: tuple[mp.Model, mp.Model], data: flipped.Digits, theta: Any, params: Any, x: Tensor, y: Tensor
) -> Any:
    """d clean loss / dθ after one step of gradient descent on the losses that θ weighs."""
    model, weigher = models

    def inner(params: Any, theta: Any, batch: Any) -> Tensor:
        losses = weighted.losses(model, params, x, y)
        return weights(weigher, theta, losses) @ losses

    def outer(params: Any, theta: Any) -> Tensor:
        return weighted.losses(model, params, data.clean_x, data.clean_y).mean()

    return mp.hypergradient(inner, outer, mp.sgd(weighted.RATE), theta, params, [()]).grads


def learned(model: mp.Model, data: flipped.Digits) -> tuple[weighted.Weigh, Any]:
    """The method as training takes it; its memory is θ and the state of θ's optimiser."""
    weigher, optimizer = mp.from_module(net), mp.adam(1e-3)

    def weigh(memory: Any, params: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Any]:
        theta, state = memory
        grads = meta_gradient((model, weigher), data, theta, params, x, y)
        updates, state = optimizer.update(grads, state, theta)
        theta = mp.tree.add(theta, updates)
        return weights(weigher, theta, weighted.losses(model, params, x, y)).detach(), (theta, state)

    theta, _ = weigher.init(mp.key(0))
    return weigh, (theta, optimizer.init(theta))


if __name__ == "__main__":
    weighted.compare("Meta-Weight-Net", learned)
