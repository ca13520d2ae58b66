"""Modules that draw: dropout in all its forms, stochastic depth, random activations, noise."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from zoo.entry import Entry, Fn, after, between, linear, numbers

PICTURE = numbers(1, 4, 4)


def dropped(layer):
    return Entry(between(layer), numbers(4), random=True)


def pictures(layer):
    return Entry(
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), layer(), nn.Flatten(), linear(12)), PICTURE, random=True
    )


def by_function(m, x):
    return m.head(F.dropout(torch.tanh(m.first(x)), 0.4, m.training))


def stochastic_depth(m, x):
    """A layer that is left out for some of the examples (Huang et al., ECCV 2016)."""
    hidden = torch.tanh(m.first(x))
    if m.training:
        kept = (torch.rand(len(x), 1, dtype=x.dtype) < 0.6) / 0.6
        return m.head(hidden + kept * torch.tanh(m.second(hidden)))
    return m.head(hidden + torch.tanh(m.second(hidden)))


def noisy(m, x):
    hidden = m.first(x)
    return m.head(torch.tanh(hidden + 0.3 * torch.randn_like(hidden) if m.training else hidden))


def bernoulli(m, x):
    hidden = torch.tanh(m.first(x))
    return m.head(hidden * torch.bernoulli(torch.full_like(hidden, 0.6)) / 0.6)


def shuffled(m, x):
    """Mixup within the batch (Zhang et al., ICLR 2018)."""
    order = torch.randperm(len(x))
    return m.head(torch.tanh(m.first(0.7 * x + 0.3 * x[order])))


def deep(m, x):
    return m.head(m.body(x)[0][:, -1])


def attention(m, x):
    return m.head(m.mix(x, x, x, need_weights=False)[0].mean(1))


def encoder():
    body = nn.TransformerEncoderLayer(4, 2, 5, dropout=0.3, batch_first=True, activation="gelu")
    return Fn(lambda m, x: m.head(m.body(x).mean(1)), body=body, head=linear())


ENTRIES = {
    "dropout": dropped(lambda: nn.Dropout(0.4)),
    "dropout twice": Entry(
        lambda: nn.Sequential(
            nn.Linear(4, 4), nn.Dropout(0.3), nn.Tanh(), nn.Linear(4, 4), nn.Dropout(0.3), nn.Tanh(), linear()
        ),
        numbers(4),
        random=True,
    ),
    "dropout of channels": pictures(lambda: nn.Dropout2d(0.4)),
    "dropout by function": Entry(
        lambda: Fn(by_function, first=nn.Linear(4, 4), head=linear()), numbers(4), random=True
    ),
    "alpha dropout": dropped(lambda: nn.AlphaDropout(0.3)),
    "feature alpha dropout": pictures(lambda: nn.FeatureAlphaDropout(0.3)),
    "dropout in attention": Entry(
        lambda: Fn(attention, mix=nn.MultiheadAttention(4, 2, dropout=0.3, batch_first=True), head=linear()),
        numbers(3, 4),
        random=True,
    ),
    "dropout in an encoder layer": Entry(encoder, numbers(3, 4), random=True),
    "dropout between layers of a gru": Entry(
        lambda: Fn(deep, body=nn.GRU(3, 4, num_layers=2, dropout=0.4, batch_first=True), head=linear()),
        numbers(3, 3),
        random=True,
    ),
    "stochastic depth": Entry(
        lambda: Fn(stochastic_depth, first=nn.Linear(4, 4), second=nn.Linear(4, 4), head=linear()),
        numbers(4),
        random=True,
    ),
    "random relu": dropped(nn.RReLU),
    "gumbel softmax": Entry(after(lambda h: F.gumbel_softmax(h, 0.7)), numbers(4), random=True),
    "gaussian noise": Entry(lambda: Fn(noisy, first=nn.Linear(4, 4), head=linear()), numbers(4), random=True),
    "bernoulli, in the exam too": Entry(
        lambda: Fn(bernoulli, first=nn.Linear(4, 4), head=linear()), numbers(4), random=True
    ),
    "mixup": Entry(lambda: Fn(shuffled, first=nn.Linear(4, 4), head=linear()), numbers(4), random=True, coupled=True),
    "dropout, evaluated": Entry(between(lambda: nn.Dropout(0.4)), numbers(4), random=True, evaluated=True),
}
