"""Dataset distillation: ten images, one of each class, that a network learns the digits from.

    python examples/distillation.py

The meta-parameters are the images and the learning rate. A network with random weights takes 20 steps on the images and
is judged by its loss on real digits. Each outer step draws four networks anew, and torch.vmap trains them at once.

Wang, Zhu, Torralba and Efros, "Dataset Distillation" (arXiv 1811.10959).
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import metapl as mp

STEPS, MODEL = 20, mp.from_module(lambda: nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)))


def data():
    """1,000 digits to distil, and 797 for the test."""
    x, y = (torch.tensor(array) for array in load_digits(return_X_y=True))
    return (x[:1000].float() / 16.0, y[:1000]), (x[1000:].float() / 16.0, y[1000:])


def drawn(key, count):
    """Random parameters of some networks, stacked."""
    return mp.tree.map(lambda *leaves: torch.stack(leaves), *(MODEL.init(one)[0] for one in mp.split(key, count)))


def loss(params, x, y):
    """The mean cross entropy."""
    return mp.cross_entropy(MODEL.apply(params, {}, x, train=True)[0], y).mean()


def taught(theta, params, real):
    """The loss on real examples of a network that has taken its steps on the images, and its parameters."""
    return mp.bilevel.objective(
        lambda params, theta, _: loss(params, theta["images"], torch.arange(10)),
        lambda params, _theta: loss(params, *real),
        lambda theta: mp.sgd(theta["log lr"].exp()),
        theta,
        params,
        [()] * STEPS,
    )


def mean_loss(theta, starts, real):
    """The mean of that loss over networks."""
    return torch.vmap(lambda params: taught(theta, params, real)[0])(starts).mean()


def accuracy(theta, x, y):
    """The mean accuracy of 20 networks that learn from the images; no outer step has drawn them."""
    with torch.no_grad():
        params = torch.vmap(lambda params: taught(theta, params, (x, y))[1])(drawn(mp.key(2), 20))
        logits = torch.vmap(lambda params: MODEL.apply(params, {}, x, train=False)[0])(params)
    return float((logits.argmax(-1) == y).float().mean())


def main(outer_steps=60):
    """Print the test accuracy after real images, class means and distilled images, each at its best learning rate."""
    (x, y), test = data()
    sets = {f"real images {index}": [x[y == label][index] for label in range(10)] for index in range(5)}
    for name, images in {**sets, "class means": [x[y == label].mean(0) for label in range(10)]}.items():
        rates = [{"images": torch.stack(images), "log lr": torch.tensor(lr).log()} for lr in (0.1, 0.3, 1.0, 3.0)]
        theta = max(rates, key=lambda theta: accuracy(theta, x, y))
        print(f"{name}: test accuracy {accuracy(theta, *test):.3f}", flush=True)
    rule = mp.adam(mp.cosine(0.02, outer_steps))
    theta["log lr"] = torch.tensor(0.3).log()  # well below the rates at which training is unstable
    state = rule.init(theta)
    for index in range(outer_steps):
        grads = torch.func.grad(mean_loss)(theta, drawn(mp.fold_in(mp.key(1), index), 4), (x, y))
        updates, state = rule.update(grads, state, theta)
        theta = mp.tree.add(theta, updates)
    print(f"distilled: test accuracy {accuracy(theta, *test):.3f}, learning rate {theta['log lr'].exp():.2f}")


if __name__ == "__main__":
    main()
