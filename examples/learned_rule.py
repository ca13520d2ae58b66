"""The optimiser that learned_optimizer.py and learned_optimizer_pes.py train: a small network in place of a formula.

It steps every number among the parameters by itself, so that it trains networks of any shape.
"""

import torch

import metapl as mp

STEPS = 100
"""Of a training."""


def learned(theta):
    """The optimiser of these weights. With `out` zero it is Adam without its bias correction, at rate exp(log lr)."""

    def one(grad, averages, time):
        decays = grad.new_tensor([0.5, 0.9, 0.99, 0.95]).reshape(-1, *[1] * grad.ndim)
        averages = decays * averages + (1.0 - decays) * torch.stack([grad, grad, grad, grad * grad])
        size = torch.sqrt(averages[3] + 1e-12)
        features = torch.stack([grad / size, *(averages[:3] / size), time.expand(grad.shape)], dim=-1)
        aside, longer = (torch.tanh(features @ theta["in"] + theta["bias"]) @ theta["out"]).unbind(-1)
        return -(theta["log lr"] + longer).exp() * (features[..., 2] + aside), averages

    def init(params):
        return torch.zeros(()), mp.tree.map(lambda leaf: leaf.new_zeros(4, *leaf.shape), params)

    def update(grads, state, params):
        time, averages = state
        updates, averages = mp.tree.map_unzip(lambda *leaves: one(*leaves, time), 2, grads, averages)
        return updates, (time + 1.0 / STEPS, averages)

    return mp.Optimizer(init, update)


def first(key, hidden=8):
    """The weights to begin with."""
    theta = {"in": 0.3 * mp.rng.normal(key, (5, hidden)), "bias": torch.zeros(hidden), "out": torch.zeros(hidden, 2)}
    return {**theta, "log lr": torch.tensor(-4.0)}


def train(optimizer, model, carry, batches, **how):
    """Parameters and state of the optimiser after one step for each batch, and the loss before each step `[steps]`."""

    def loss(params, batch):
        return mp.cross_entropy(model.apply(params, {}, batch[0], train=True)[0], batch[1]).mean()

    def step(carry, batch):
        params, state = carry
        value, _, grads = mp.value_and_grad_inside(loss, params, batch)
        updates, state = optimizer.update(grads, state, params)
        return (mp.tree.add(params, updates), state), value

    return mp.scan(step, carry, batches, **how)
