"""The problems of learned_optimizer.py and learned_optimizer_pes.py, and the comparison with Adam and SGD."""

import itertools

import torch
from learned_rule import STEPS, learned, train
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn

import metapl as mp


def problem(load, *sizes, activation=nn.ReLU):
    """Standardised inputs, labels, and a network of these sizes."""

    def build():
        pairs = itertools.pairwise(sizes)
        return nn.Sequential(*[part for pair in pairs for part in (nn.Linear(*pair), activation())][:-1])

    x, y = load(return_X_y=True)
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y), mp.from_module(build)


SEEN = problem(load_digits, 64, 32, 10)
UNSEEN = {
    "digits, 64-64-64-10, tanh": problem(load_digits, 64, 64, 64, 10, activation=nn.Tanh),
    "breast cancer, 30-32-2": problem(load_breast_cancer, 30, 32, 2),
}


def draw(given, key, count, size=32):
    """Starts of some trainings and their batches `[count, steps, size, ...]`, all by a key."""
    x, y, model = given
    starts = mp.tree.map(lambda *leaves: torch.stack(leaves), *(model.init(one)[0] for one in mp.split(key, count)))
    rows = mp.rng.randint(key, (count, STEPS, size), len(y))
    return starts, (x[rows], y[rows])


def mean_losses(optimizer, model, starts, batches, **how):
    """The mean loss over each training `[count]`."""

    def one(start, batch):
        return train(optimizer, model, (start, optimizer.init(start)), batch, **how)[1].mean()

    return torch.vmap(one)(starts, batches)


RATES = torch.logspace(-3.5, 0.5, 9)
"""The learning rates of Adam and SGD."""


def compare(theta):
    """Print the mean loss over 16 trainings of every problem, beside Adam and SGD at their best learning rates."""
    for name, given in {"digits, 64-32-10 (seen)": SEEN, **UNSEEN}.items():
        drawn = draw(given, mp.key(9), 16)

        def found(optimizer, given=given, drawn=drawn):
            return mean_losses(optimizer, given[2], *drawn, method="reverse").mean()

        with torch.no_grad():
            ours, adam = found(learned(theta)), torch.vmap(lambda lr: found(mp.adam(lr)))(RATES)
            sgd = torch.vmap(lambda lr: found(mp.sgd(lr, momentum=0.9)))(RATES)
        best = [one.nan_to_num(torch.inf).min() for one in (adam, sgd)]  # the largest rates diverge
        print(f"{name}: learned {ours:.4f}, Adam {best[0]:.4f}, SGD {best[1]:.4f}", flush=True)
