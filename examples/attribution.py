"""Data attribution: which training examples helped or hurt a prediction, by the gradient through all of training.

    python examples/attribution.py --data digits

Every training example has a weight in the loss. The derivative of a test example's loss after training in those weights
says what leaving examples out would change; training again without them says what it does change. The linear
datamodelling score (LDS) is the rank correlation of the two over random subsets, averaged over the test examples.

Ilyas and Engstrom, "MAGIC: Near-Optimal Data Attribution for Deep Learning" (arXiv 2504.16430).
"""

import argparse
from functools import partial

import torch
from scipy.stats import spearmanr
from torch import nn

import metapl as mp
from metapl.data.sources.find import load


def data(name, examples, tests):
    """Flat inputs of mean 0 and length about 8, and labels: the first of the training pool and of the test set."""
    found = load(name)
    x, test_x = found.x[:examples].flatten(1).float(), found.x_test[:tests].flatten(1).float()
    mean, scale = x.mean(), x.std() * (x.shape[1] / 64) ** 0.5
    return ((x - mean) / scale, found.y[:examples]), ((test_x - mean) / scale, found.y_test[:tests])


def network(features, classes, width=32):
    """A smooth network, so that the loss after training is a smooth function of the weights of the examples."""
    return mp.from_module(lambda: nn.Sequential(nn.Linear(features, width), nn.Tanh(), nn.Linear(width, classes)))


def train(model, start, weights, examples, *, epochs=40, batch=250, method="replay"):
    """The parameters after SGD with momentum on the mean of weight_i loss_i; every training has the same batches."""
    (x, y), rule = examples, mp.sgd(0.02, momentum=0.9)
    orders = [mp.rng.permutation(mp.fold_in(mp.key(1), epoch), len(y)) for epoch in range(epochs)]

    def loss(params, rows):
        return (weights[rows] * mp.cross_entropy(model.apply(params, {}, x[rows], train=True)[0], y[rows])).mean()

    def step(carry, rows):
        params, state = carry
        updates, state = rule.update(mp.grad_inside(loss, params, rows)[0], state, params)
        return (mp.tree.add(params, updates), state), ()

    batches = [rows for order in orders for rows in order.split(batch)]
    return mp.scan(step, (start, rule.init(start)), batches, method=method)[0][0]


def losses(weights, model, start, examples, tests, **how):
    """The loss of each test example after training `[tests]`, as a function of the weights of the training examples."""
    params = train(model, start, weights, examples, **how)
    return mp.cross_entropy(model.apply(params, {}, tests[0], train=False)[0], tests[1])


def lds(predicted, found):
    """The mean over test examples of Spearman's rank correlation over subsets; both are `[subsets, tests]`."""
    return sum(spearmanr(a, b).statistic for a, b in zip(predicted.T, found.T, strict=True)) / found.shape[1]


def main(count=1000, tests=24, trainings=64):
    """Print the LDS over trainings that each do without 1 % of the examples."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="digits")
    examples, tests = data(parser.parse_args().data, count, tests)
    model = network(examples[0].shape[1], 10)
    after = partial(losses, model=model, start=model.init(mp.key(0))[0], examples=examples, tests=tests)
    scores = torch.func.jacrev(after)(torch.ones(count))  # [tests, examples]
    ranks = torch.stack([mp.rng.permutation(key, count) for key in mp.split(mp.key(2), trainings)])
    left_out = (ranks < count / 100).float()
    with torch.no_grad():
        trained = torch.vmap(partial(after, method="reverse"), chunk_size=16)(1.0 - left_out)
    print(f"LDS {lds(-left_out @ scores.T, trained):.3f}")


if __name__ == "__main__":
    main()
