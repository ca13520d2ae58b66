"""Modules with values that count as constants."""

from __future__ import annotations

import torch
from torch import nn

from zoo.entry import CLASSES, NO_FORWARD, NO_TRANSFORM, Entry, Fn, after, between, linear, numbers, weight

# ---------------------------------------------------------------- values without a gradient


class Scale(nn.Module):
    """x W, in training divided by the norm of W as a constant."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.norm = weight(4, CLASSES), norm

    def forward(self, x):
        return x @ self.weight / self.norm(self.weight) if self.training else x @ self.weight


def by_block(w):
    with torch.no_grad():
        return w.norm()


@torch.no_grad()
def by_decorator(w):
    return w.norm()


def by_switch(w):
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    found = w.norm()
    torch.set_grad_enabled(before)
    return found


def by_context(w):
    with torch.set_grad_enabled(mode=False):
        return w.norm()


def by_writing(w):
    """What is written in place is a tensor of the block's own."""
    with torch.no_grad():
        found = torch.zeros((), dtype=w.dtype)
        found.add_(w.norm())
        return found


def again_inside(w):
    """A gradient that is switched on again within the block: of a constant, still."""
    with torch.no_grad():
        length = w.norm()
        with torch.enable_grad():
            return length * 1.5


def scale(norm):
    return Entry(lambda: Scale(norm), numbers(4), evaluated=True)


class Renorm(nn.Module):
    """Batch renormalisation (Ioffe, 2017): the correction towards the running statistics is a constant."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("std", torch.ones(4))

    def forward(self, x):
        if not self.training:
            return self.weight * (x - self.mean) / self.std
        mean, std = x.mean(0), x.std(0, unbiased=False) + 1e-3
        with torch.no_grad():
            r, d = (std / self.std).clamp(0.2, 5.0), ((mean - self.mean) / self.std).clamp(-3.0, 3.0)
            self.mean.lerp_(mean, 0.2)
            self.std.lerp_(std, 0.2)
        return self.weight * ((x - mean) / std * r + d)


class Momentum(nn.Module):
    """A slow copy of the encoder, kept as a buffer, tells the fast one what to look for (He et al., CVPR 2020)."""

    def __init__(self):
        super().__init__()
        self.fast, self.head = nn.Linear(4, 4), linear()
        self.register_buffer("slow", self.fast.weight.detach().clone() + 0.3)

    def forward(self, x):
        hidden = torch.tanh(self.fast(x))
        with torch.no_grad():
            if self.training:
                self.slow.mul_(0.8).add_(self.fast.weight, alpha=0.2)
            keys = torch.tanh(x @ self.slow.T)
        return self.head(hidden * keys)


class Trusting(nn.Module):
    """As SoftMatch weighs: by how sure the module is, as a constant."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, CLASSES)
        self.register_buffer("usual", torch.tensor(0.4))

    def forward(self, x):
        logits = self.body(x)
        if not self.training:
            return logits
        with torch.no_grad():
            sure = torch.softmax(logits, -1).amax(-1)
            self.usual.lerp_(sure.mean(), 0.5)
            weights = torch.exp(-4.0 * (sure - self.usual) ** 2)
        return logits * weights[:, None]


class Codebook(nn.Module):
    """Vector quantisation, straight-through (van den Oord et al., 2017)."""

    def __init__(self):
        super().__init__()
        self.encode, self.codes, self.head = nn.Linear(4, 2), weight(5, 2), linear(2)

    def forward(self, x):
        encoded = self.encode(x)
        code = self.codes[torch.cdist(encoded, self.codes).argmin(-1)]
        return self.head(encoded + (code - encoded).detach() + 0.3 * code)


def detached(x):
    return x.detach()


def by_data(m, x):
    return m.head(torch.tanh(m.first(x)) / m.first.weight.data.norm())


def by_item(m, x):
    return m.head(torch.tanh(m.first(x)) / m.first.weight.norm().item())


def stop_half(h):
    return torch.cat([h[:, :2], h[:, 2:].detach()], 1)


def attention_to_itself(h):
    """Self-distillation: a constant target on the way."""
    with torch.no_grad():
        scores = torch.softmax(h @ h.T, -1)
    return scores @ h


ENTRIES = {
    "no_grad block": scale(by_block),
    "no_grad decorator": scale(by_decorator),
    "grad switched off": scale(by_switch),
    "grad off, context": scale(by_context),
    "no_grad, writing in place": scale(by_writing),
    "no_grad, grad again inside": scale(again_inside),
    "detach": scale(lambda w: w.norm().detach()),
    "data of a tensor": Entry(lambda: Fn(by_data, first=nn.Linear(4, 4), head=linear()), numbers(4)),
    ".item()": Entry(lambda: Fn(by_item, first=nn.Linear(4, 4), head=linear()), numbers(4), either=NO_TRANSFORM),
    "half detached": Entry(after(stop_half), numbers(4)),
    "constant attention": Entry(after(attention_to_itself), numbers(4), coupled=True),
    "batch renorm": Entry(between(Renorm), numbers(4), evaluated=True, coupled=True),
    "momentum encoder": Entry(Momentum, numbers(4)),
    "weights of trust": Entry(Trusting, numbers(4), evaluated=True, coupled=True),
    "codebook": Entry(Codebook, numbers(4), either=(*NO_FORWARD, "fraction")),
}
