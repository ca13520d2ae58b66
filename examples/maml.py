"""MAML on Omniglot: a start from which one step of gradient descent learns new characters (Finn et al., ICML 2017).

Run it as `python examples/maml.py --data FOLDER`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any

import omniglot
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import metapl as mp

Learn = Callable[[Any, omniglot.Tasks], tuple[Tensor, Tensor]]
"""`learn(theta, task)`: the loss on the queries of a task, and the share of them that is right."""


def learn(model: mp.Model, steps: int, theta: Any, task: omniglot.Tasks) -> tuple[Tensor, Tensor]:
    """A task after `steps` steps of gradient descent, at a rate of 0.4, that begin at θ."""
    x, y, query_x, query_y = task

    def loss(params: Any) -> Tensor:
        return cross_entropy(model.apply(params, {}, x, train=True)[0], y)

    params = theta
    for _ in range(steps):
        grads, _ = mp.grad_inside(loss, params)
        params = mp.tree.sub(params, mp.tree.scale(0.4, grads))
    return judged(model.apply(params, {}, query_x, train=True)[0], query_y)


def judged(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and the share that is right."""
    return cross_entropy(logits, y), (logits.argmax(1) == y).double().mean()


def meta_gradient(learn: Learn, theta: Any, tasks: omniglot.Tasks) -> tuple[Tensor, Any]:
    """The mean loss of tasks, eight of which are learned side by side at a time, and its gradient at θ."""
    loss, _, grads = mp.value_and_grad(lambda at: torch.vmap(partial(learn, at), chunk_size=8)(tasks)[0].mean(), theta)
    return loss, grads


def run(learn: Callable[..., Any], theta: Any, *, train_steps: int, test_steps: tuple[int, ...]) -> None:
    """Train θ by Adam on the characters of one split, 8 tasks a step, and test it on 1,000 tasks of the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="the folder of omniglot_packed.npz")
    parser.add_argument("--steps", type=int, default=6000)
    args = parser.parse_args()
    old, new = (omniglot.load(args.data, split) for split in ("trainval", "test"))
    optimizer, generator, mean = mp.adam(mp.cosine(3e-3, args.steps)), torch.Generator(), 0.0
    state = optimizer.init(theta)
    for step in range(1, args.steps + 1):
        loss, grads = meta_gradient(partial(learn, train_steps), theta, omniglot.draw(old, generator, 8))
        updates, state = optimizer.update(grads, state, theta)
        theta, mean = mp.tree.add(theta, updates), mean + float(loss) / 100
        if step % 100 == 0:
            print(f"step {step}: loss {mean:.3f}, {process_time():.0f} seconds of a core", flush=True)
            mean = 0.0
    for steps in test_steps:
        tested = torch.vmap(partial(learn, steps, theta), chunk_size=25)
        right = tested(omniglot.draw(new, torch.Generator(), 1000))[1]
        print(f"after {steps} steps: {right.mean():.2%} ± {1.96 * right.std() / len(right) ** 0.5:.2%}")


def main() -> None:
    """MAML with one step."""
    model = mp.from_module(omniglot.network)
    run(partial(learn, model), model.init(mp.key(0))[0], train_steps=1, test_steps=(1, 3))


if __name__ == "__main__":
    main()
