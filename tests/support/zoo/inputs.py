"""Modules with other inputs and outputs than one tensor, and functions between layers."""

from __future__ import annotations

import torch
from torch import nn

from zoo.entry import BATCH, Entry, Fn, after, linear, noise, numbers


def two_inputs(m, x, y):
    return m.head(torch.tanh(m.first(x) + m.second(y)))


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = Fn(two_inputs, first=nn.Linear(4, 4), second=nn.Linear(2, 4), head=linear())

    def forward(self, x, y):
        return self.body(x, y)


class OneDict(Keywords):
    def forward(self, inputs):
        return self.body(inputs["x"], inputs["y"])


class Outputs(nn.Module):
    """Logits and features, as many models return."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(4, 4), linear()

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.head(hidden), hidden


def pair(seed):
    return noise(BATCH, 4, seed=seed), noise(BATCH, 2, seed=seed + 100)


def named(seed):
    return dict(zip(("x", "y"), pair(seed), strict=True))


ENTRIES = {
    "two inputs": Entry(Keywords, pair),
    "a dict of inputs": Entry(Keywords, named),
    "a dict as one input": Entry(OneDict, named, one_dict=True),
    "a tuple of outputs, wrapped": Entry(lambda: Fn(lambda m, x: m.body(x)[0], body=Outputs()), numbers(4)),
    "a tuple of outputs": Entry(Outputs, numbers(4), refused="tuple|tensor"),
    "softmax by function": Entry(after(lambda h: torch.softmax(h, -1)), numbers(4)),
    "sorted": Entry(after(lambda h: torch.sort(h, -1).values), numbers(4)),
    "einsum": Entry(after(lambda h: torch.einsum("bi,bj->bij", h, h).flatten(1), width=16), numbers(4)),
}
