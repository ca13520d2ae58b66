"""Embeddings with padding under `torch.vmap`, held to a loop over the tasks."""

import pytest
import torch
from asserts import relative_error
from torch import nn
from torch.nn.functional import cross_entropy

from metapl.core import inside, rng, tree
from metapl.nn import functional
from metapl.nn.padding import kept

WORDS = torch.tensor([[[0, 3], [1, 0], [4, 2]], [[0, 0], [2, 5], [1, 0]]])
LABELS = torch.tensor([[0, 1, 0], [1, 1, 0]])


def network(padding):
    embedding = nn.Embedding(6, 3, padding_idx=padding)
    return nn.Sequential(embedding, nn.Tanh(), nn.Flatten(), nn.Linear(6, 2)).double()


@pytest.mark.parametrize("padding", [0, 2, -1])
def test_a_step_and_its_derivative(padding):
    model = functional.from_module(lambda: network(padding))
    params = {name: leaf + 0.3 for name, leaf in model.init(rng.key(0))[0].items()}

    def after(params, words, labels):
        def loss(params):
            return cross_entropy(model.apply(params, {}, words, train=True)[0], labels)

        params = tree.sub(params, tree.scale(0.5, inside.gradient(loss, params)[0]))
        return params["0.weight"], loss(params)

    def both(run):
        leaves = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
        moved, losses = run(leaves)
        return moved.detach(), torch.autograd.grad(losses.sum(), list(leaves.values()))

    alone, expected = both(
        lambda leaves: [torch.stack(x) for x in zip(*map(lambda x, y: after(leaves, x, y), WORDS, LABELS), strict=True)]
    )
    together, found = both(lambda leaves: torch.vmap(lambda x, y: after(leaves, x, y))(WORDS, LABELS))
    assert relative_error(together, alone) < 1e-12
    assert relative_error(found, expected) < 1e-12
    assert torch.equal(together[:, padding], params["0.weight"][[padding, padding]])


def test_what_has_no_padding_is_left_alone():
    for module in (nn.Embedding(6, 3), nn.Linear(3, 2)):
        assert kept(module) is module
