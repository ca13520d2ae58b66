"""The two routes of one step, against each other and `unroll`, and which of them a network takes."""

import pytest
import torch
from asserts import assert_close_tree
from problems import NETWORKS, build, estimate, make
from students import Conv, f64, feedback, given
from torch import nn

from metapl import estimators
from metapl.estimators.tape import Tape
from metapl.registry.errors import InputError

ROUTES = ("forward", "reverse")


@pytest.mark.parametrize("labels", ["soft", "sampled", "argmax"])
@pytest.mark.parametrize("rule", ["nesterov", "adamw", "clipped"])
@pytest.mark.parametrize("network", NETWORKS)
def test_both_routes_are_the_same(network, rule, labels):
    case = make(network, rule, labels)
    forward, reverse = (estimate(case, f"exact:route={one}") for one in ROUTES)
    assert_close_tree(forward.grads, reverse.grads, rtol=1e-12, atol=1e-16)
    assert_close_tree(forward.state, reverse.state, rtol=1e-12, atol=1e-16)
    assert_close_tree(
        (forward.outer, forward.inner, forward.scale), (reverse.outer, reverse.inner, reverse.scale), 1e-12
    )
    assert_close_tree(forward.info, reverse.info, rtol=1e-10, atol=1e-16)


def test_the_routes_are_the_same_over_vmap():
    at = given(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3)))
    thetas = f64(4, 6, 3, seed=9)
    loop = torch.stack([feedback(estimators.unroll(), at._replace(thetas=[one])) for one in thetas])
    for one in ROUTES:
        exact = estimators.exact(route=one)
        found = torch.vmap(lambda theta, e=exact: feedback(e, at._replace(thetas=[theta])))(thetas)
        assert_close_tree(found, loop, rtol=1e-12)


class Headed(nn.Module):
    """A layer, and a linear one after it."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.last = layer, nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.layer(x))


@pytest.fixture
def forward_walks(monkeypatch):
    """How often an estimate of an estimator for a module goes forward."""
    walks, along = [], Tape.along
    monkeypatch.setattr(Tape, "along", lambda *given: walks.append(given) or along(*given))

    def count(module, estimator):
        at = given(module)
        walks.clear()
        feedback(estimator, at)
        return len(walks)

    return count


def test_the_route_follows_from_the_network(forward_walks):
    assert forward_walks(lambda: Headed(Conv()), estimators.exact()) == 1
    assert forward_walks(lambda: Headed(Conv()), estimators.exact(route="reverse")) == 0
    assert forward_walks(lambda: Headed(nn.Linear(4, 5)), estimators.exact()) == 0
    assert forward_walks(lambda: Headed(nn.Linear(4, 5)), estimators.exact(route="forward")) == 1
    frozen = forward_walks(lambda: Headed(Conv().requires_grad_(False)), estimators.exact())
    assert frozen == 0  # the kernels are not trained, so the way back does not pass them


def test_routes_that_there_are():
    with pytest.raises(InputError, match="unknown route 'foward': did you mean 'forward'"):
        build("exact:route=foward")
    with pytest.raises(ValueError, match="leave route=reverse out"):
        estimators.exact(fraction=0.5, route="reverse")
