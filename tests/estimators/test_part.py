"""Exact feedback of a part of the batch: by enumeration of the parts, and refused where a part is not the whole."""

import pytest
import torch
from asserts import assert_close_tree
from students import feedback, given
from torch import nn
from torch.nn.functional import dropout as draw

from metapl import estimators
from metapl.core import rng
from metapl.nn import dropout
from metapl.registry.errors import InputError


class Masks(nn.Module):
    def __init__(self, noise):
        super().__init__()
        self.first, self.noise, self.last = nn.Linear(4, 5), noise, nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.noise(self.first(x)))


PARTS = [nn.Dropout(0.5), dropout.Dropout(0.3), nn.Sequential(nn.Dropout(0.2), nn.Tanh(), nn.Dropout(0.4)), nn.Tanh()]


@pytest.mark.parametrize("noise", PARTS)
def test_a_part_has_the_noise_of_the_whole(noise):
    """By enumeration: the mean over all parts of 2 of 4 examples is the feedback of the whole."""
    at = given(lambda: Masks(noise), rows=4, key=rng.key(5))
    whole = feedback(estimators.unroll(), at)
    assert_close_tree(feedback(estimators.exact(), at), whole, rtol=1e-12)
    found, keys = {}, (rng.key(seed) for seed in range(400))
    while len(found) < 6:
        one = feedback(estimators.exact(fraction=0.5), at._replace(key=next(keys)))
        found[tuple(one.abs().sum(1).nonzero()[:, 0].tolist())] = one
    assert all(len(rows) == 2 for rows in found)
    assert_close_tree(torch.stack(list(found.values())).mean(0), whole, rtol=1e-12)


class Drawn(nn.Module):
    def forward(self, x):
        return draw(x, 0.5, training=self.training)


class Path(nn.Module):
    def forward(self, x):
        return x * (torch.rand(len(x), 1, dtype=x.dtype) > 0.5) if self.training else x


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x) if self.training else x


@pytest.mark.parametrize("noise", [Drawn, Path, Noisy, lambda: nn.BatchNorm1d(5), lambda: nn.AlphaDropout(0.5)])
def test_a_part_that_is_not_the_whole_is_refused(noise):
    at = given(lambda: Masks(noise()), rows=8, key=rng.key(5))
    with pytest.raises(InputError, match="another loss in a part of the batch"):
        feedback(estimators.exact(fraction=0.5), at)
    assert torch.isfinite(feedback(estimators.exact(), at)).all()


def test_a_part_that_is_not_the_whole_is_no_number_under_vmap():
    at = given(lambda: Masks(nn.BatchNorm1d(5)), rows=8)
    (theta,) = at.thetas
    part = estimators.exact(fraction=0.5)
    found = torch.vmap(lambda theta: feedback(part, at._replace(thetas=[theta])))(torch.stack([theta, -theta]))
    assert found.isnan().all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_losses_that_are_smaller_in_the_part_are_seen_as_larger_ones_are(sign):
    at = given(lambda: nn.Linear(4, 3), rows=8)

    def inner(*arguments):
        losses, buffers = at.problem.inner(*arguments)
        return losses + sign * 0.1 * len(losses), buffers  # of a part of the batch smaller, or larger

    with pytest.raises(InputError, match="another loss in a part of the batch"):
        feedback(estimators.exact(fraction=0.5), at._replace(problem=at.problem._replace(inner=inner)))
