"""A learned optimiser, trained by persistent evolution strategies: its weights take a step for every 10 of training.

    python examples/learned_optimizer_pes.py

A training is cut into truncations, and none is differentiated. Each particle goes on with its own state from truncation
to truncation, and its noise is added up on the way. That makes the estimate unbiased for the whole training, where the
gradient through one truncation is not: it is that of the smoothed loss, and exact where the loss is quadratic in θ.

Vicol, Metz and Sohl-Dickstein, "Unbiased Gradient Estimation in Unrolled Computation Graphs with Persistent Evolution
Strategies" (ICML 2021).
"""

from functools import partial

import torch
from learned_problems import SEEN, compare, draw
from learned_rule import STEPS, first, learned, train

import metapl as mp


def pes(truncation, theta, carries, sums, key, *, sigma):
    """The share of one truncation in the gradient, and the states and sums of the noise after it.

    Of every pair one particle is at θ + ε and one at θ − ε: the estimate is the mean of ξ (loss₊ − loss₋) / 2σ², where
    ξ is the sum of the ε of this truncation and of all before it.

    Args:
        truncation: `truncation(theta, carry) -> (carry, loss)`, some steps and their share of the loss.
        theta: a tree.
        carries: the states of the particles, first those at θ + ε, then those at θ − ε, stacked `[2 pairs, ...]`.
        sums: ξ, stacked along the pairs; zeros before the first truncation.
        key: draws ε.
        sigma: its standard deviation.
    """
    leaves, structure = mp.tree.flatten(sums)
    keyed = zip(mp.split(key, len(leaves)), leaves, strict=True)
    noise = mp.tree.unflatten([sigma * mp.rng.normal(k, leaf.shape, leaf.dtype) for k, leaf in keyed], structure)
    sums = mp.tree.add(sums, noise)
    moved = mp.tree.map(lambda at, by: at + torch.cat([by, -by]), theta, noise)
    with torch.no_grad():
        carries, losses = torch.vmap(truncation)(moved, carries)
    above, below = losses.chunk(2)
    share = (above - below) / (2.0 * sigma**2 * len(above))
    return mp.tree.map(lambda leaf: torch.tensordot(share, leaf, dims=1), sums), carries, sums


def truncation(theta, carry, batches):
    """Some steps of a training, and their share of its mean loss."""
    carry, losses = train(learned(theta), SEEN[2], carry, batches, method="reverse")
    return carry, losses.sum() / STEPS


def main(trainings=25, length=10, pairs=16, sigma=0.02):
    """Train the optimiser on one training at a time, truncation by truncation, and compare it."""
    theta = first(mp.key(0))
    rule = mp.chain(mp.clip_by_global_norm(1.0), mp.adam(mp.cosine(0.02, trainings * STEPS // length)))
    state = rule.init(theta)
    for index in range(trainings):
        key = mp.fold_in(mp.key(1), index)
        starts, batches = mp.tree.map(lambda leaf: leaf[0], draw(SEEN, key, 1))
        begun = starts, learned(theta).init(starts)
        carries = mp.tree.map(lambda leaf: leaf.expand(2 * pairs, *leaf.shape), begun)
        sums = mp.tree.map(lambda leaf: leaf.new_zeros(pairs, *leaf.shape), theta)
        for at in range(0, STEPS, length):
            some = mp.tree.map(lambda leaf, at=at: leaf[at : at + length], batches)
            steps = partial(truncation, batches=some)
            grads, carries, sums = pes(steps, theta, carries, sums, mp.fold_in(key, at + 1), sigma=sigma)
            updates, state = rule.update(grads, state, theta)
            theta = mp.tree.add(theta, updates)
    compare(theta)


if __name__ == "__main__":
    main()
