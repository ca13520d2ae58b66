"""ANIL on Omniglot: MAML that adapts the last layer alone, on features that stay (Raghu et al., ICLR 2020).

Run it as `python examples/anil.py --data FOLDER`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import maml
import omniglot
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

import metapl as mp


def learn(features: mp.Model, steps: int, theta: Any, task: omniglot.Tasks) -> tuple[Tensor, Tensor]:
    """A task after `steps` steps of the last layer; the features are computed once, and not differentiated twice."""
    x, y, query_x, query_y = task
    seen, asked = (features.apply(theta["features"], {}, part, train=True)[0] for part in (x, query_x))

    def loss(head: Any, seen: Tensor) -> Tensor:
        return cross_entropy(linear(seen, head["weight"], head["bias"]), y)

    head = theta["head"]
    for _ in range(steps):
        grads, _ = mp.grad_inside(loss, head, seen)
        head = mp.tree.sub(head, mp.tree.scale(0.4, grads))
    return maml.judged(linear(asked, head["weight"], head["bias"]), query_y)


def start(features: mp.Model, last: nn.Linear) -> Any:
    """θ: the features as torch draws them, and zeros for the last layer."""
    zeros = {name: torch.zeros_like(leaf) for name, leaf in last.state_dict().items()}
    return {"features": features.init(mp.key(0))[0], "head": zeros}


def main() -> None:
    """Train on the characters of one split, and test on those of the other."""
    features = mp.from_module(lambda: omniglot.network()[:-1])
    maml.run(partial(learn, features), start(features, omniglot.network()[-1]), train_steps=5, test_steps=(5, 10))


if __name__ == "__main__":
    main()
