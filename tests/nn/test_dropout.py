"""Dropout as a function of a key: rates and sizes in closed form, parts of a batch, and vmap."""

import contextlib

import pytest
import torch
from torch import nn

from metapl.core import rng
from metapl.nn import dropout, functional

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


def passed(layer, x, key=0, rows=None):
    layer.noise = dropout.Noise(rng.key(key), rows)
    return layer.train()(x)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_each_number_is_dropped_with_its_probability_and_the_rest_scaled(p):
    y = passed(dropout.Dropout(p), torch.ones(400, 500, dtype=torch.float64))
    dropped = (y == 0).double()
    assert float(dropped.mean()) == pytest.approx(p, abs=4 * (p * (1 - p) / 200_000) ** 0.5)
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / (1 - p)))
    for axis in (0, 1):  # no row and no column is dropped together
        spread = dropped.mean(axis).std()
        assert float(spread) == pytest.approx((p * (1 - p) / y.shape[axis]) ** 0.5, rel=0.2)


def test_the_ends_are_nothing_and_everything():
    x = torch.randn(5, 7)
    assert torch.equal(passed(dropout.Dropout(0.0), x), x)
    assert not passed(dropout.Dropout(1.0), x).any()
    assert torch.equal(dropout.Dropout(0.5).eval()(x), x)


@pytest.mark.parametrize(("kind", "axes"), [(nn.Dropout1d, 1), (nn.Dropout2d, 2), (nn.Dropout3d, 3)])
def test_whole_channels_are_dropped_where_torch_drops_them(kind, axes):
    layer = dropout.keyed(kind(0.5))
    y = passed(layer, torch.ones(6, 8, *(3,) * axes))
    assert set(y.flatten(2).std(2).unique().tolist()) == {0.0}
    assert set(y.unique().tolist()) == {0.0, 2.0}


def test_without_a_key_it_says_so():
    with pytest.raises(RuntimeError, match="needs a key"):
        dropout.Dropout(0.5).train()(torch.ones(2, 2))


def test_layers_of_one_pass_draw_apart_and_passes_alike():
    layer, x = dropout.Dropout(0.5), torch.ones(20, 20)
    layer.noise = dropout.Noise(rng.key(0))
    first, second = layer.train()(x), layer.train()(x)
    assert not torch.equal(first, second)
    assert torch.equal(first, passed(layer, x))
    assert not torch.equal(first, passed(layer, x, key=1))


def test_parts_of_a_batch_are_dropped_as_in_the_whole():
    layer, x = dropout.Dropout(0.5), torch.randn(12, 5, 3)
    whole = passed(layer, x)
    for rows in (torch.arange(0, 12, 3), torch.tensor([7, 2]), torch.tensor([11])):
        assert torch.equal(passed(layer, x[rows], rows=rows), whole[rows])


def test_examples_that_are_folded_into_rows_keep_their_draws():
    """As heads of attention: `[batch · heads, …]`, the batch first."""
    layer, x = dropout.Dropout(0.5), torch.randn(6, 4, 5)
    whole, rows = passed(layer, x.reshape(24, 5), rows=torch.arange(6)), torch.tensor([1, 4])
    assert torch.equal(passed(layer, x[rows].reshape(8, 5), rows=rows), whole.reshape(6, 4, 5)[rows].reshape(8, 5))


def test_vmap_over_keys_draws_one_mask_a_member():
    layer, x, keys = dropout.Dropout(0.5).train(), torch.ones(4, 6), torch.stack(rng.split(rng.key(0), 3))

    def one(key):
        layer.noise = dropout.Noise(key)
        return layer(x)

    found = torch.vmap(one)(keys)
    assert torch.equal(found, torch.stack([one(key) for key in keys]))
    assert not torch.equal(found[0], found[1])


class Branches(nn.Module):
    """Dropout at the top, inside of another module, and one layer under two names."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3))
        self.last = nn.Dropout2d(0.2)
        self.alpha = nn.AlphaDropout(0.1)

    def forward(self, x):
        return self.last(self.inner(x))


def test_every_dropout_layer_of_a_module_draws_from_the_key():
    """Those of torch would draw from its generator: seeded otherwise within the pass, they would draw otherwise."""
    model = functional.from_module(Branches)
    params, buffers = model.init(rng.key(0))
    x, draws = torch.ones(50, 4, 4), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rng, "seeded", lambda key: contextlib.nullcontext())
            draws.append(model.apply(params, buffers, x, train=True, key=rng.key(0))[0])
    assert torch.equal(draws[0], draws[1])
    assert (draws[0] == 0).any(2).any()


def test_a_model_with_dropout_leaves_torchs_generator_alone_and_needs_a_key():
    model = functional.from_module(lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)))
    params, buffers = model.init(rng.key(0))
    state, x = torch.get_rng_state(), torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    one, other = (model.apply(params, buffers, x, train=True, key=rng.key(k))[0] for k in (1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(one, other)
    with pytest.raises(RuntimeError, match="needs a key"):
        model.apply(params, buffers, x, train=True)


def test_what_draws_by_itself_is_seeded_apart_in_every_part():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    model = functional.from_module(Noisy)
    x = torch.zeros(3, 2)
    draws = [model.apply({}, {}, x, train=True, key=rng.key(0), rows=torch.arange(3) + start)[0] for start in (0, 0, 3)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    alone = model.apply({}, {}, x[:1], train=True, key=rng.key(0), rows=torch.tensor([7]))[0]
    assert not torch.equal(alone, draws[0][:1])


def test_rows_of_a_part_are_counted_within_the_part():
    """Rows 2 and 0 of the part (6, 1, 4) of a batch are its rows 4 and 6, and have the masks of these."""
    model = functional.from_module(lambda: nn.Dropout(0.5))
    x = torch.randn(8, 30, generator=torch.Generator().manual_seed(0))

    def passed(chosen, rows=None):
        return model.apply({}, {}, x[chosen], train=True, key=rng.key(1), rows=rows)[0]

    whole, part = passed(torch.arange(8)), torch.tensor([6, 1, 4])
    with functional.part_of_batch(part):
        assert torch.equal(passed(part), whole[part])
        assert torch.equal(passed(part[[2, 0]], rows=torch.tensor([2, 0])), whole[[4, 6]])
        with functional.part_of_batch(torch.tensor([3])):
            assert torch.equal(passed([3]), whole[[3]])
        assert torch.equal(passed(part), whole[part])
    assert torch.equal(passed(torch.arange(8)), whole)


def test_normalisation_is_told_from_other_parameters():
    def build():
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Sequential(nn.GroupNorm(2, 8)), nn.Linear(8, 2))

    model = functional.from_module(build)
    assert model.scales == {"1.weight", "1.bias", "2.0.weight", "2.0.bias"}
    assert model.coupled
    assert functional.from_module(lambda: nn.LayerNorm(3)).scales == {"weight", "bias"}
    assert not functional.from_module(lambda: nn.LayerNorm(3)).coupled

    class Gated(nn.LayerNorm):
        def __init__(self):
            super().__init__(3)
            self.gate = nn.Linear(3, 3)

    assert functional.from_module(Gated).scales == {"weight", "bias"}
