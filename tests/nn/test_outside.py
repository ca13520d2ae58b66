"""Layers that forward uses and the module does not have: refused, as nothing would learn them."""

import functools

import pytest
import torch
from torch import nn

from metapl.core import rng
from metapl.nn import functional
from metapl.registry.errors import InputError

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
LAYER = nn.Linear(3, 2)
CALLED = nn.Linear(3, 2)
FIXED = nn.Linear(3, 2).requires_grad_(False)


class Using(nn.Module):
    """A layer of its own, and after it what it was given: as a plain attribute, or the function made of it."""

    def __init__(self, name, made):
        super().__init__()
        self.first = nn.Linear(3, 3)
        object.__setattr__(self, name, made)

    def forward(self, x):
        return self.first(x)


class NamesAGlobal(nn.Module):
    def forward(self, x):
        return LAYER(x)


class NamesAnAttribute(nn.Module):
    """Its attribute has the name of a global that is another layer."""

    def __init__(self):
        super().__init__()
        self.CALLED = nn.Linear(3, 2)

    def forward(self, x):
        return self.CALLED(x)


class NamesAFixedGlobal(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)

    def forward(self, x):
        return FIXED(self.first(x))


def closed_over():
    layer = nn.Linear(3, 2)

    class Net(nn.Module):
        def forward(self, x):
            return layer(x)

    return Net()


USES = {
    "as a plain attribute": (lambda: Using("head", nn.Linear(3, 2)), "Using uses the layer head"),
    "in a lambda": (lambda: Using("fn", lambda x: 2.0 * LAYER(x)), "uses the layer fn"),
    "by its method": (lambda: Using("fn", LAYER.forward), "uses the layer fn"),
    "in a partial": (lambda: Using("fn", functools.partial(lambda layer, x: layer(x), LAYER)), "uses the layer fn"),
    "in lists": (lambda: Using("layers", [[LAYER]]), "uses the layer layers"),
    "a global": (lambda: nn.Sequential(NamesAGlobal()), r"0 \(NamesAGlobal\) uses the layer LAYER"),
    "of a closure": (closed_over, "Net uses the layer layer"),
}


@pytest.mark.parametrize("name", USES)
def test_a_layer_of_somewhere_else_is_refused(name):
    build, message = USES[name]
    with pytest.raises(InputError, match=f"{message}, which is not a part of it.*assign it in the constructor$"):
        functional.from_module(build)


@pytest.mark.parametrize("build", [NamesAnAttribute, NamesAFixedGlobal, lambda: Using("itself", None)])
def test_what_is_its_own_or_learns_nothing_is_none(build):
    model = functional.from_module(build)
    params, buffers = model.init(rng.key(0))
    expected = build()
    expected.load_state_dict(params)
    assert torch.equal(model.apply(params, buffers, X, train=True)[0], expected(X))


class Late(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)

    def forward(self, x):
        if not hasattr(self, "late"):
            self.late = nn.Linear(3, 2)
        return self.late(self.first(x))


def test_a_layer_that_forward_makes_is_refused():
    model = functional.from_module(lambda: nn.Sequential(Late()))
    with pytest.raises(InputError, match=r"forward makes 0\.late, which is new in every pass: make it in the construc"):
        model.apply(*model.init(rng.key(0)), X, train=True, key=rng.key(1))
