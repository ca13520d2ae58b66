"""Normalisation and parametrisation, and weights that are shared, frozen or adapted."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torch.nn.utils import parametrizations, parametrize, prune

from zoo.entry import NO_FORWARD, Entry, Fn, between, linear, numbers, weight

PICTURE = numbers(1, 4, 4)


def pictures(norm):
    """A normalisation of two channels, after a convolution."""
    return lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), norm(), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), linear(8)
    )


class Standardised(nn.Conv2d):
    """Weight standardisation (Qiao et al., 2019)."""

    def forward(self, x):
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / (std + 1e-5), self.bias)


class Response(nn.Module):
    """Global response normalisation, as in ConvNeXt V2."""

    def __init__(self):
        super().__init__()
        self.gamma, self.beta = weight(4), weight(4)

    def forward(self, x):
        length = x.norm(dim=0, keepdim=True)
        return self.gamma * (x * length / length.mean(-1, keepdim=True)) + self.beta + x


NORMS = {
    "batch norm 1d": Entry(between(lambda: nn.BatchNorm1d(4)), numbers(4), coupled=True),
    "batch norm 1d, evaluated": Entry(between(lambda: nn.BatchNorm1d(4)), numbers(4), evaluated=True, coupled=True),
    "batch norm 2d": Entry(pictures(lambda: nn.BatchNorm2d(2)), PICTURE, coupled=True),
    "batch norm, cumulative": Entry(
        between(lambda: nn.BatchNorm1d(4, momentum=None)), numbers(4), evaluated=True, coupled=True
    ),
    "batch norm, untracked": Entry(
        between(lambda: nn.BatchNorm1d(4, track_running_stats=False)), numbers(4), coupled=True
    ),
    "batch norm, without weights": Entry(between(lambda: nn.BatchNorm1d(4, affine=False)), numbers(4), coupled=True),
    "layer norm": Entry(between(lambda: nn.LayerNorm(4)), numbers(4)),
    "group norm": Entry(pictures(lambda: nn.GroupNorm(2, 2)), PICTURE),
    "instance norm": Entry(pictures(lambda: nn.InstanceNorm2d(2, affine=True)), PICTURE),
    "instance norm, tracked": Entry(
        pictures(lambda: nn.InstanceNorm2d(2, affine=True, track_running_stats=True)),
        PICTURE,
        evaluated=True,
        coupled=True,
    ),
    "rms norm": Entry(between(lambda: nn.RMSNorm(4)), numbers(4)),
    "local response norm": Entry(pictures(lambda: nn.LocalResponseNorm(2, alpha=0.5)), PICTURE),
    "global response norm": Entry(between(Response), numbers(4), coupled=True),
    "unit length": Entry(
        lambda: Fn(lambda m, x: m.head(F.normalize(m.first(x))), first=nn.Linear(4, 4), head=linear()), numbers(4)
    ),
    "standardised weights": Entry(
        lambda: nn.Sequential(Standardised(1, 2, 3), nn.Tanh(), nn.Flatten(), linear(8)), PICTURE
    ),
}


def legacy(wrap):
    def build():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return wrap(nn.Linear(4, 4))

    return between(build)


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)


class Masked(nn.Module):
    """A parametrisation with a buffer of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", (torch.arange(16).reshape(4, 4) % 3 > 0).double())

    def forward(self, x):
        return x * self.mask


def parametrised(*by):
    def build():
        layer = nn.Linear(4, 4)
        for one in by:
            parametrize.register_parametrization(layer, "weight", one())
        return layer

    return between(build)


def cached(m, x):
    with parametrize.cached():
        return m.head(torch.tanh(m.first(torch.tanh(m.first(x)))))


PARAMETRISED = {
    "weight norm": Entry(between(lambda: parametrizations.weight_norm(nn.Linear(4, 4))), numbers(4), either=NO_FORWARD),
    "weight norm, by columns": Entry(
        between(lambda: parametrizations.weight_norm(nn.Linear(4, 4), dim=1)), numbers(4), either=NO_FORWARD
    ),
    "weight norm, legacy": Entry(legacy(nn.utils.weight_norm), numbers(4), either=NO_FORWARD),
    "spectral norm": Entry(
        between(lambda: parametrizations.spectral_norm(nn.Linear(4, 4))), numbers(4), either=NO_FORWARD
    ),
    "spectral norm, evaluated": Entry(
        between(lambda: parametrizations.spectral_norm(nn.Linear(4, 4))), numbers(4), evaluated=True, either=NO_FORWARD
    ),
    "spectral norm, legacy": Entry(legacy(nn.utils.spectral_norm), numbers(4), either=NO_FORWARD),
    "orthogonal": Entry(between(lambda: parametrizations.orthogonal(nn.Linear(4, 4))), numbers(4)),
    "orthogonal, by Cayley": Entry(
        between(lambda: parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="cayley")), numbers(4)
    ),
    "pruned": Entry(between(lambda: prune.l1_unstructured(nn.Linear(4, 4), "weight", 5)), numbers(4)),
    "symmetric": Entry(parametrised(Symmetric), numbers(4)),
    "two parametrisations": Entry(parametrised(Symmetric, Masked), numbers(4)),
    "parametrisation, cached": Entry(
        lambda: Fn(cached, first=parametrizations.weight_norm(nn.Linear(4, 4)), head=linear()),
        numbers(4),
        either=NO_FORWARD,
    ),
}


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), linear()
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Autoencoder(nn.Module):
    """One matrix there and back."""

    def __init__(self):
        super().__init__()
        self.weight, self.head = weight(4, 3), linear()

    def forward(self, x):
        return self.head(torch.tanh(x @ self.weight) @ self.weight.T)


class Lora(nn.Module):
    """A frozen layer and a low-rank change of it (Hu et al., ICLR 2022)."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(4, 4)
        self.base.requires_grad_(False)
        self.down, self.up = weight(4, 2), weight(2, 4)

    def forward(self, x):
        return self.base(x) + x @ self.down @ self.up


def frozen(*names):
    def build():
        module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), linear())
        for name, value in module.named_parameters():
            value.requires_grad_(name not in names)
        return module

    return build


def frozen_norm():
    module = between(lambda: nn.BatchNorm1d(4))()
    module[2].requires_grad_(False)
    return module


def peft_lora():
    import peft  # noqa: PLC0415 - an optional package

    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), linear())
    model = peft.get_peft_model(module, peft.LoraConfig(target_modules=["0"], r=2, init_lora_weights=False))
    return Fn(lambda m, x: m.body(x), body=model)


SHARED = {
    "tied": Entry(Tied, numbers(4)),
    "tied to its transpose": Entry(Autoencoder, numbers(4)),
    "one layer twice": Entry(
        lambda: Fn(lambda m, x: m.head(torch.tanh(m.one(torch.tanh(m.one(x))))), one=nn.Linear(4, 4), head=linear()),
        numbers(4),
    ),
    "frozen first layer": Entry(frozen("0.weight", "0.bias"), numbers(4)),
    "frozen bias in the middle": Entry(frozen("2.bias"), numbers(4)),
    "frozen head": Entry(frozen("4.weight", "4.bias"), numbers(4)),
    "frozen batch norm": Entry(frozen_norm, numbers(4), coupled=True),
    "lora": Entry(between(Lora), numbers(4)),
    "lora, by peft": Entry(peft_lora, numbers(4), needs="peft"),
    "a parameter without a part": Entry(lambda: Fn(lambda m, x: m.head(x), idle=weight(3), head=linear()), numbers(4)),
}

ENTRIES = {**NORMS, **PARAMETRISED, **SHARED}
