"""A learned optimiser, trained by unrolling: the gradient of the mean loss over a whole training.

    python examples/learned_optimizer.py

Andrychowicz et al., "Learning to learn by gradient descent by gradient descent" (NeurIPS 2016).
"""

import torch
from learned_problems import SEEN, compare, draw, mean_losses
from learned_rule import first, learned

import metapl as mp


def meta_gradient(theta, given, drawn):
    """The mean loss over the steps of some trainings, and its derivative in the weights of the optimiser."""

    def objective(theta):
        return mean_losses(learned(theta), given[2], *drawn).mean()

    grads, value = torch.func.grad_and_value(objective)(theta)
    return value, grads


def main(outer_steps=20):
    """Train the optimiser on four trainings at a time, and compare it."""
    theta = first(mp.key(0))
    rule = mp.chain(mp.clip_by_global_norm(1.0), mp.adam(mp.cosine(0.02, outer_steps)))
    state = rule.init(theta)
    for index in range(outer_steps):
        value, grads = meta_gradient(theta, SEEN, draw(SEEN, mp.fold_in(mp.key(1), index), 4))
        updates, state = rule.update(grads, state, theta)
        theta = mp.tree.add(theta, updates)
        if index % 10 == 0:
            print(f"{index:4}: mean loss {value:.4f}", flush=True)
    compare(theta)


if __name__ == "__main__":
    main()
