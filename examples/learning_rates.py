"""A learning rate and a weight decay for every layer, by the gradient through 300 steps of training.

    python examples/learning_rates.py

The meta-parameters are logarithms, one rate and one decay for each weight matrix and each bias of a 64-256-10 network.
They are judged by the loss on held-out digits after all 300 steps: a hypergradient through few steps prefers rates that
are too small (Wu et al., ICLR 2018). Of the 300 states on the way only 35 are kept.

Maclaurin, Duvenaud and Adams, "Gradient-based Hyperparameter Optimization through Reversible Learning" (ICML 2015).
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

import metapl as mp


def data():
    """300 digits to train on, 700 to judge the training by, and 797 for the test."""
    x, y = (torch.tensor(array) for array in load_digits(return_X_y=True))
    x = x.float() / 16.0
    return (x[:300], y[:300]), (x[300:1000], y[300:1000]), (x[1000:], y[1000:])


def batches(examples, steps, size=32):
    """Inputs and labels of every step, stacked along the steps."""
    (x, y), rows = examples, mp.rng.randint(mp.key(1), (steps, size), len(examples[1]))
    return x[rows], y[rows]


def everywhere(params, **logs):
    """The same numbers for every parameter: for each hyperparameter a dict by the name of the parameter."""
    return {kind: {name: p.new_tensor(log) for name, p in params.items()} for kind, log in logs.items()}


def hypergradient(model, theta, params, inputs, held_out, **how):
    """The held-out loss after training, its derivative in every rate and decay, and the trained parameters."""

    def loss(params, theta, batch):
        return mp.cross_entropy(model.apply(params, {}, batch[0], train=True)[0], batch[1]).mean()

    def outer(params, theta):
        return loss(params, theta, held_out)

    def optimizer(theta):
        exp = mp.tree.map(torch.exp, theta)
        return mp.sgd(exp["lr"], weight_decay=exp["decay"])

    return mp.hypergradient(loss, outer, optimizer, theta, params, inputs, **how)


def main():
    """Learn the hyperparameters, and compare with what they began at."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--outer-steps", type=int, default=10)
    args = parser.parse_args()
    train, held_out, (test_x, test_y) = data()
    model = mp.from_module(lambda: nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)))
    rule = mp.chain(mp.clip_by_global_norm(0.1), mp.sgd(5.0))
    params, inputs = model.init(mp.key(0))[0], batches(train, args.steps)
    theta = everywhere(params, lr=-1.2, decay=-7.0)
    state = rule.init(theta)
    for index in range(args.outer_steps + 1):
        found = hypergradient(model, theta, params, inputs, held_out, checkpoints=True)
        right = (model.apply(found.params, {}, test_x, train=False)[0].argmax(1) == test_y).float().mean()
        print(f"{index:3}: held-out loss {found.value:.4f}, test accuracy {right:.4f}")
        updates, state = rule.update(found.grads, state, theta)
        theta = mp.tree.add(theta, updates)
    print({kind: {name: f"{value.exp():.2g}" for name, value in values.items()} for kind, values in theta.items()})


if __name__ == "__main__":
    main()
