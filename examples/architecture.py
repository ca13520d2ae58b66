"""Which activation in which layer: architecture weights by gradient, as in DARTS (Liu, Simonyan and Yang, ICLR 2019).

    python examples/architecture.py

Two layers mix four activations with weights softmax(α). The network steps on training data, and α on held-out data, by
the exact gradient through the network's next step. Then all 16 networks of one activation a layer are trained.
"""

from itertools import pairwise, product

import torch

import metapl as mp

OPERATIONS, RULE = {"identity": lambda h: h, "relu": torch.relu, "tanh": torch.tanh, "sine": torch.sin}, mp.adam(0.01)


def spirals(key, count, dtype=torch.float32):
    """Points of two spirals that wind around each other twice `[count, 2]`, and which of them each is on."""
    y, along, noise = (mp.rng.uniform(one, (count,), dtype) for one in mp.split(key, 3))
    angle = 4.0 * torch.pi * along.sqrt()
    radius = torch.where(y < 0.5, 1.0, -1.0) * (angle / 4.0 + 0.3 * (noise - 0.5))
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), (y < 0.5).long()


def start(key, sizes=(2, 16, 16, 2), dtype=torch.float32):
    """The weights and biases of every layer, and the state of the optimiser."""
    keyed = zip(mp.split(key, len(sizes) - 1), pairwise(sizes), strict=True)
    params = [(mp.rng.normal(one, (a, b), dtype) / a**0.5, torch.zeros(b, dtype=dtype)) for one, (a, b) in keyed]
    return params, RULE.init(params)


def logits(params, mix, x):
    """The network whose hidden layers mix the activations by `mix` `[layers, operations]`."""
    for (weight, bias), shares in zip(params[:-1], mix, strict=True):
        x = sum(share * each(x @ weight + bias) for share, each in zip(shares, OPERATIONS.values(), strict=True))
    return x @ params[-1][0] + params[-1][1]


def loss(params, mix, batch):
    """The mean cross entropy."""
    return mp.cross_entropy(logits(params, mix, batch[0]), batch[1]).mean()


def step(carry, mix, batch):
    """A step of the network."""
    params, state = carry
    updates, state = RULE.update(mp.grad_inside(loss, params, mix, batch)[0], state, params)
    return mp.tree.add(params, updates), state


def outer(alpha, carry, batch, held_out):
    """The held-out loss after the next step; α has a part in both."""
    return loss(step(carry, alpha.softmax(-1), batch)[0], alpha.softmax(-1), held_out)


def accuracy(mix, carry, batches, test):
    """The test accuracy of a network that is trained with this mix."""
    params, _ = mp.unroll(lambda carry, batch: step(carry, mix, batch), carry, batches, method="reverse")
    return (logits(params, mix, test[0]).argmax(1) == test[1]).float().mean()


def main(steps=600):
    """Search, then train all architectures from four other starts."""
    batches = [spirals(key, 64) for key in mp.split(mp.key(1), steps)]
    held_out, test, carry = spirals(mp.key(2), 500), spirals(mp.key(3), 2000), start(mp.key(4))
    alpha, rule = torch.zeros(2, 4), mp.adam(0.003)
    state = rule.init(alpha)
    for batch in batches:
        updates, state = rule.update(torch.func.grad(outer)(alpha, carry, batch, held_out), state, alpha)
        carry, alpha = step(carry, alpha.softmax(-1), batch), alpha + updates
    mixes = torch.stack([torch.stack(rows) for rows in product(torch.eye(4), repeat=2)])
    train = torch.vmap(accuracy, in_dims=(0, None, None, None))
    each = sum(train(mixes, start(key), batches, test) for key in mp.split(mp.key(5), 4)) / 4.0
    print("found", [list(OPERATIONS)[index] for index in alpha.argmax(1)])
    print(*sorted(zip(each.tolist(), product(OPERATIONS, repeat=2), strict=True), reverse=True), sep="\n")


if __name__ == "__main__":
    main()
