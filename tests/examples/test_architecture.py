"""examples/architecture.py: its gradient against plain autograd, and its search on networks that are known."""

import architecture
import pytest
import torch
from asserts import relative_error
from torch.nn import functional as F  # noqa: N812 - torch's own convention

import metapl as mp

BY_NAME = {"identity": torch.Tensor.clone, "relu": torch.relu, "tanh": torch.tanh, "sine": torch.sin}


def outputs(values, mix, x):
    w1, b1, w2, b2, w3, b3 = values
    for shares, w, b in ((mix[0], w1, b1), (mix[1], w2, b2)):
        x = sum(share * operation(x @ w + b) for share, operation in zip(shares, BY_NAME.values(), strict=True))
    return x @ w3 + b3


def test_the_gradient_is_that_of_plain_autograd():
    """Through a step of Adam from a warm state, and directly."""
    params, state = architecture.start(mp.key(0), sizes=(2, 3, 3, 2), dtype=torch.float64)
    square = mp.tree.map(lambda leaf: leaf.square() + 0.01, params)
    state = state._replace(step=torch.tensor(4), mean=mp.tree.scale(0.1, params), square=square)
    alpha = mp.rng.normal(mp.key(1), (2, 4), torch.float64)
    batch, (held_x, held_y) = (architecture.spirals(mp.key(seed), 8, torch.float64) for seed in (2, 3))
    found = torch.func.grad(architecture.outer)(alpha, (params, state), batch, (held_x, held_y))

    alpha.requires_grad_()
    values = [leaf.clone().requires_grad_() for leaf in mp.tree.leaves(params)]
    loss = F.cross_entropy(outputs(values, alpha.softmax(-1), batch[0]), batch[1])
    after = []
    moments = zip(mp.tree.leaves(state.mean), mp.tree.leaves(square), strict=True)
    grads = torch.autograd.grad(loss, values, create_graph=True)
    for p, g, (m, v) in zip(values, grads, moments, strict=True):
        mean, root = 0.9 * m + 0.1 * g, (0.999 * v + 0.001 * g * g).div(1 - 0.999**5).sqrt()
        after.append(p - 0.01 * mean / (1 - 0.9**5) / (root + 1e-8))
    held = F.cross_entropy(outputs(after, alpha.softmax(-1), held_x), held_y)
    assert relative_error(found, torch.autograd.grad(held, alpha)[0]) < 1e-8


def test_the_spirals_wind_twice():
    x, y = architecture.spirals(mp.key(0), 4000)
    angle = x.norm(dim=1) * 4.0  # as the noise allows
    side = torch.stack([angle.cos(), angle.sin()], dim=1) * x > 0
    assert y.float().mean() == pytest.approx(0.5, abs=0.03)
    assert x.norm(dim=1).max() == pytest.approx(torch.pi, abs=0.2)
    assert bool((side.all(1)[y == 1].float().mean() > 0.8) & (side.all(1)[y == 0].float().mean() < 0.2))


def test_the_program_ranks_all_networks(capsys):
    architecture.main(steps=3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("found ['")
    ranked = [eval(line) for line in lines[1:]]
    assert len({names for _, names in ranked}) == 16
    assert [right for right, _ in ranked] == sorted((right for right, _ in ranked), reverse=True)
