"""The control: as long as exact feedback, and about nothing, or about other examples."""

import pytest
import torch
from problems import build, estimate, make

from metapl.core import rng


def pairs(kind, steps=1, draws=1):
    """Exact feedback and the placebo's, `[examples, classes]` each, for several keys."""
    case = make("mlp", "nesterov", "soft", steps=steps, batch=8)
    truth = estimate(case, "exact").grads
    for index in range(draws):
        drawn = estimate(case._replace(key=rng.key(index)), f"placebo:kind={kind}").grads
        yield from zip(truth, drawn, strict=True)


@pytest.mark.parametrize("steps", [1, 2])
def test_signs_are_turned_example_by_example(steps):
    found = []
    for truth, spoilt in pairs("signs", steps, draws=40):
        sign = spoilt[:, :1] / truth[:, :1]
        assert torch.equal(sign.abs(), torch.ones_like(sign))
        assert torch.equal(spoilt, sign * truth)
        found.append(sign)
    assert torch.cat(found).mean().abs() < 4 / (8 * 40 * steps) ** 0.5  # four standard errors of a fair coin
    assert len({tuple(sign.flatten().tolist()) for sign in found}) > 30 * steps


@pytest.mark.parametrize("steps", [1, 2])
def test_examples_are_dealt_out_anew(steps):
    orders = set()
    for truth, spoilt in pairs("examples", steps, draws=20):
        order = torch.cdist(spoilt, truth).argmin(-1)
        assert sorted(order.tolist()) == list(range(len(truth)))
        assert torch.equal(spoilt, truth[order])
        orders.add(tuple(order.tolist()))
    assert len(orders) > 15 * steps


@pytest.mark.parametrize("kind", ["signs", "examples"])
def test_the_state_is_that_of_exact(kind):
    case = make("mlp", "nesterov", "soft")
    right, spoilt = estimate(case, "exact"), estimate(case, f"placebo:kind={kind}")
    assert all(torch.equal(right.state.params[name], value) for name, value in spoilt.state.params.items())
    assert torch.equal(right.scale, spoilt.scale)
    assert torch.equal(right.outer, spoilt.outer)
    assert build("placebo").claim == "wrong"


def test_another_kind_is_refused():
    with pytest.raises(Exception, match="kind='noise'"):
        build("placebo:kind=noise")
