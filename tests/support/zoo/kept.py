"""Modules that keep something, or that are no plain module: right where it can be, refused where it cannot."""

from __future__ import annotations

import functools
import warnings

import torch
from torch import nn

from zoo.entry import SECOND, Entry, Fn, between, linear, noise, numbers, weight

plain = between(nn.Identity)


class Kept(nn.Module):
    """Adds what it saw last; `keep` says how it remembers."""

    def __init__(self, keep):
        super().__init__()
        self.first, self.head, self.keep = nn.Linear(4, 4), linear(), keep
        self.register_buffer("seen", torch.zeros(4))
        self.state, self.count = torch.zeros(4), 0

    def forward(self, x):
        return self.head(torch.tanh(self.first(x) + self.keep(self, x)))


def as_buffer(m, x):
    m.seen = 0.5 * m.seen + x.detach().mean(0)
    return m.seen


def as_buffer_in_place(m, x):
    before = m.seen.clone()
    m.seen.mul_(0.5).add_(x.detach().mean(0))
    return before


def as_attribute(m, x):
    before = m.state
    m.state = x.detach().mean(0)
    return before


def as_count(m, x):
    m.count += 1
    return 0.1 * m.count


def writes_its_weights(m, x):
    with torch.no_grad():
        m.first.weight.mul_(0.9)
    return x.mean()


def replaces_its_weights(m, x):
    m.first.weight.data = m.first.weight.data.clamp(-0.3, 0.3)
    return x.mean()


def kept(how):
    return functools.partial(Kept, how)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.generator = linear(), torch.Generator().manual_seed(1)

    def forward(self, x):
        return self.body(x + torch.randn(x.shape, generator=self.generator, dtype=x.dtype))


class Counted(nn.Module):
    """A trainable table of integers cannot be, a constant one can."""

    def __init__(self, how):
        super().__init__()
        self.body = linear()
        index = torch.tensor([2, 0, 1, 3])
        if how == "parameter":
            self.index = nn.Parameter(index, requires_grad=False)
        else:
            self.register_buffer("index", index, persistent=how == "buffer")

    def forward(self, x):
        return self.body(x[:, self.index])


class Constant(nn.Module):
    def forward(self, x):
        return x[:, :3] * 2.0


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(plain())


def traced():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(plain(), noise(4, 4))


def compiled():
    return torch.compile(plain(), backend="eager")


def uncompiled():
    """Under the names that torch.compile gives to the parameters."""
    return Fn(lambda m, x: m._orig_mod(x), _orig_mod=plain())


class Lent(nn.Module):
    """Made once; every call of `build` hands out the same."""

    def __init__(self):
        super().__init__()
        self.module = None

    def __call__(self):
        if self.module is None:
            self.module = plain()
        return self.module


def twisted():
    """A plain list hides a layer from torch."""
    module = Fn(lambda m, x: m.head(torch.tanh(m.hidden[0](x))), head=linear())
    module.hidden = [nn.Linear(4, 4)]
    return module


def plain_tensor():
    """A constant kept as an attribute, which is no buffer but never changes."""
    module = Fn(lambda m, x: m.head(x * m.constant), head=linear())
    module.constant = torch.tensor([1.0, 2.0, 0.5, 1.5])
    return module


def hidden_weight():
    """A leaf that requires a gradient and is no parameter: the optimiser of plain torch would not see it either."""
    module = Fn(lambda m, x: m.head(x * m.hidden), head=linear())
    module.hidden = torch.tensor([1.0, 2.0, 0.5, 1.5]).requires_grad_()
    return module


ENTRIES = {
    "buffer assigned anew": Entry(kept(as_buffer), numbers(4), coupled=True),
    "buffer written in place": Entry(kept(as_buffer_in_place), numbers(4), coupled=True),
    "buffer written in evaluation": Entry(kept(as_buffer_in_place), numbers(4), evaluated=True, coupled=True),
    "state as an attribute": Entry(kept(as_attribute), numbers(4), refused="state|attribute|buffer"),
    "count in Python": Entry(kept(as_count), numbers(4), refused="count|attribute|buffer"),
    "generator of its own": Entry(Generator, numbers(4), refused="[Gg]enerator"),
    "writes its weights": Entry(kept(writes_its_weights), numbers(4), refused="writes|in place"),
    "replaces its weights": Entry(kept(replaces_its_weights), numbers(4), refused="writes|in place|replaces|data"),
    "integer buffer": Entry(lambda: Counted("buffer"), numbers(4)),
    "buffer that is not saved": Entry(lambda: Counted("hidden"), numbers(4)),
    "integer parameter": Entry(lambda: Counted("parameter"), numbers(4)),
    "no parameters": Entry(Constant, numbers(4), refused="parameter"),
    "all frozen": Entry(lambda: linear().requires_grad_(False), numbers(4), refused="parameter"),
    "data parallel": Entry(lambda: nn.DataParallel(plain()), numbers(4), refused="DataParallel"),
    "lazy": Entry(lambda: nn.Sequential(nn.LazyLinear(4), nn.Tanh(), linear()), numbers(4), refused="[Ll]azy"),
    "scripted": Entry(scripted, numbers(4), refused="[Ss]cript|jit"),
    "traced": Entry(traced, numbers(4), refused="[Ss]cript|[Tt]rac|jit"),
    "compiled": Entry(compiled, numbers(4), twin=uncompiled, either=(*SECOND, "first-order")),
    "one module, lent": Entry(Lent(), numbers(4), twin=plain),
    "layer in a plain list": Entry(twisted, numbers(4), refused="hides a layer"),
    "constant as an attribute": Entry(plain_tensor, numbers(4)),
    "weight as an attribute": Entry(hidden_weight, numbers(4)),
    "parameter list": Entry(
        lambda: Fn(
            lambda m, x: m.head(torch.tanh(x @ m.many[0] + m.many[1])),
            many=nn.ParameterList([weight(4, 4), weight(4)]),
            head=linear(),
        ),
        numbers(4),
    ),
    "module dictionary": Entry(
        lambda: Fn(
            lambda m, x: m.head(m.many["b"](torch.tanh(m.many["a"](x)))),
            many=nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Tanh()}),
            head=linear(),
        ),
        numbers(4),
    ),
}
