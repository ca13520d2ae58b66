"""Meta-SGD on Omniglot: MAML that learns a rate for every single weight too (Li et al., arXiv 1707.09835).

Run it as `python examples/meta_sgd.py --data FOLDER`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import maml
import omniglot
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import metapl as mp


def learn(model: mp.Model, steps: int, theta: Any, task: omniglot.Tasks) -> tuple[Tensor, Tensor]:
    """A task after `steps` steps that begin at θ's parameters and go by θ's rates, which may become negative."""
    x, y, query_x, query_y = task

    def loss(params: Any) -> Tensor:
        return cross_entropy(model.apply(params, {}, x, train=True)[0], y)

    params, optimizer = theta["params"], mp.sgd(theta["rates"])
    state = optimizer.init(params)
    for _ in range(steps):
        grads, _ = mp.grad_inside(loss, params)
        updates, state = optimizer.update(grads, state, params)
        params = mp.tree.add(params, updates)
    return maml.judged(model.apply(params, {}, query_x, train=True)[0], query_y)


def start(model: mp.Model, rate: float = 0.1) -> Any:
    """θ: the parameters as torch draws them, and the same rate for all."""
    params, _ = model.init(mp.key(0))
    return {"params": params, "rates": {name: torch.full_like(leaf, rate) for name, leaf in params.items()}}


def main() -> None:
    """Train on the characters of one split, and test on those of the other."""
    model = mp.from_module(omniglot.network)
    maml.run(partial(learn, model), start(model), train_steps=1, test_steps=(1,))


if __name__ == "__main__":
    main()
