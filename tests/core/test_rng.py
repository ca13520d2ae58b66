"""Randomness as a value: known answers, distributions against closed forms, and that nothing global is touched."""

import itertools
import math
from statistics import NormalDist

import pytest
import torch
from asserts import assert_pure

from metapl.core import rng

COUNT = 40_000
KEYS = [0, 1, 2024]
DEVIATES = [
    lambda key: rng.bits(key, (3, 5)),
    lambda key: rng.uniform(key, (3, 5)),
    lambda key: rng.normal(key, (3, 5)),
    lambda key: rng.randint(key, (3, 5), 7),
    lambda key: rng.permutation(key, 15),
    lambda key: rng.categorical(key, torch.arange(15.0).reshape(3, 5)),
    lambda key: rng.fold_in(key, 9),
    lambda key: torch.stack(rng.split(key, 3)),
]
NAMES = ["bits", "uniform", "normal", "randint", "permutation", "categorical", "fold_in", "split"]


def assert_mean(values, mean, deviation):
    """The sample mean within five standard errors."""
    error = deviation / math.sqrt(values.numel())
    found = float(values.double().mean())
    assert abs(found - mean) <= 5.0 * error, f"mean {found}, expected {mean} ± {error}"


def assert_frequencies(drawn, probabilities):
    for value, p in enumerate(probabilities):
        assert_mean(drawn == value, p, math.sqrt(p * (1.0 - p)))


def test_splitmix64_known_answers():
    """The first outputs of the reference implementation, seeded with 1234567."""
    words = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    found = rng.bits(torch.tensor(1234567), (5,)).tolist()
    assert [word % 2**64 for word in found] == words


@pytest.mark.parametrize("start", [0, -1, 2**63 - 1, -(2**63), 42])
def test_bits_equal_splitmix64_in_python_integers(start):
    def step(state):
        state ^= state >> 30
        state = state * 0xBF58476D1CE4E5B9 % 2**64
        state ^= state >> 27
        state = state * 0x94D049BB133111EB % 2**64
        return state ^ (state >> 31)

    expected = [step((start + index * 0x9E3779B97F4A7C15) % 2**64) for index in range(1, 51)]
    assert [word % 2**64 for word in rng.bits(torch.tensor(start), (50,)).tolist()] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", KEYS)
def test_uniform_moments_and_independence(seed, dtype):
    u = rng.uniform(rng.key(seed), (COUNT,), dtype)
    assert u.dtype == dtype
    for power in (1, 2, 3):
        assert_mean(u.double() ** power, 1 / (power + 1), math.sqrt(1 / (2 * power + 1) - 1 / (power + 1) ** 2))
    centred = u.double() - 0.5
    for lag in (1, 2, 7):
        assert_mean(centred[lag:] * centred[:-lag], 0.0, 1.0 / 12.0)
    assert_frequencies((u * 16).to(torch.int64), [1 / 16] * 16)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 24), (torch.float64, 53)])
def test_uniform_never_reaches_its_ends(dtype, digits, monkeypatch):
    """At the extreme words, which no sample would meet."""
    monkeypatch.setattr(rng, "bits", lambda key, shape, device, rows: torch.tensor([0, -1, 1, 2**63 - 1, -(2**63)]))
    u = rng.uniform(rng.key(0), (5,), dtype)
    assert float(u.min()) == 2.0**-digits
    assert float(u.max()) == 1.0 - 2.0**-digits
    assert torch.isfinite(rng.normal(rng.key(0), (5,), dtype)).all()
    assert torch.isfinite(-torch.log(-torch.log(u))).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_uniform_stays_inside_in_half_precision(dtype):
    u = rng.uniform(rng.key(0), (COUNT,), dtype)
    assert u.dtype == dtype
    assert float(u.min()) > 0.0
    assert float(u.max()) < 1.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_categorical_frequencies_in_half_precision(dtype):
    """A class of probability 10⁻⁴ among 4: the Gumbel numbers need a fine tail."""
    p = torch.tensor([0.6, 0.3, 0.0999, 0.0001])
    drawn = rng.categorical(rng.key(0), p.log().to(dtype).expand(COUNT, 4))
    assert_frequencies(drawn, torch.softmax(p.log().to(dtype).double(), dim=-1).tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", KEYS)
def test_normal_moments_and_quantiles(seed, dtype):
    z = rng.normal(rng.key(seed), (COUNT,), dtype).double()
    for power, (mean, square) in enumerate([(0, 1), (1, 3), (0, 15), (3, 105)], start=1):
        assert_mean(z**power, mean, math.sqrt(square - mean**2))
    for quantile in (-2.0, -1.0, 0.0, 0.5, 3.0):
        p = 0.5 * (1.0 + math.erf(quantile / math.sqrt(2.0)))
        assert_mean(z < quantile, p, math.sqrt(p * (1.0 - p)))


def test_normal_is_the_quantile_of_the_uniform():
    u = rng.uniform(rng.key(0), (1000,), torch.float64)
    expected = torch.tensor([NormalDist().inv_cdf(value) for value in u.tolist()], dtype=torch.float64)
    assert torch.allclose(rng.normal(rng.key(0), (1000,), torch.float64), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("seed", KEYS)
def test_categorical_frequencies_are_the_softmax(seed):
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.01, 0.01, 0.97, 0.01]], dtype=torch.float64)
    drawn = rng.categorical(rng.key(seed), (p.log() + 3.0).expand(COUNT, 2, 4))
    assert drawn.shape == (COUNT, 2)
    for row in range(2):
        assert_frequencies(drawn[:, row], p[row].tolist())


def test_categorical_never_draws_an_impossible_class():
    logits = torch.tensor([0.0, -math.inf, 0.0]).expand(COUNT, 3)
    assert not (rng.categorical(rng.key(0), logits) == 1).any()


@pytest.mark.parametrize("high", [1, 2, 7])
def test_randint_is_uniform(high):
    drawn = rng.randint(rng.key(5), (COUNT,), high)
    assert drawn.dtype == torch.int64
    assert (int(drawn.min()), int(drawn.max())) == (0, high - 1)
    assert_frequencies(drawn, [1 / high] * high)


def test_permutation_is_uniform_over_all_orders():
    orders = torch.vmap(lambda key: rng.permutation(key, 3))(rng.bits(rng.key(0), (12_000,)))
    index = {order: i for i, order in enumerate(itertools.permutations(range(3)))}
    assert_frequencies(torch.tensor([index[tuple(order)] for order in orders.tolist()]), [1 / 6] * 6)


def test_derived_keys_are_distinct():
    root = rng.key(0)
    keys = [root, *rng.split(root, 50), *(rng.fold_in(root, data) for data in range(-50, 0))]
    keys += [rng.fold_in(rng.fold_in(root, a), b) for a in range(20) for b in range(20)]
    keys += [rng.key(seed) for seed in range(1, 50)]
    assert len({int(key) for key in keys}) == len(keys)


def test_derived_keys_are_not_the_words_drawn_with_the_same_key():
    root = rng.key(0)
    assert not set(rng.bits(root, (1000,)).tolist()) & {int(key) for key in rng.split(root, 1000)}


def test_neighbouring_keys_are_uncorrelated():
    streams = torch.stack([rng.uniform(key, (1000,), torch.float64) for key in rng.split(rng.key(0), 40)]) - 0.5
    assert_mean(streams[1:] * streams[:-1], 0.0, 1.0 / 12.0)


def test_fold_in_takes_integers_and_tensors_alike():
    for data in (0, 3, -1, 2**40):
        assert rng.fold_in(rng.key(1), data) == rng.fold_in(rng.key(1), torch.tensor(data))


@pytest.mark.parametrize("draw", DEVIATES, ids=NAMES)
def test_draws_are_pure(draw):
    assert_pure(draw, rng.key(3))


@pytest.mark.parametrize("draw", DEVIATES, ids=NAMES)
def test_vmap_over_keys_equals_a_loop(draw):
    keys = torch.stack(rng.split(rng.key(0), 6))
    assert torch.equal(torch.vmap(draw)(keys), torch.stack([draw(key) for key in keys]))


def test_a_longer_draw_begins_with_the_shorter_one():
    assert torch.equal(rng.bits(rng.key(0), (3, 4)).reshape(-1), rng.bits(rng.key(0), (20,))[:12])


def test_empty_and_scalar_shapes():
    assert rng.uniform(rng.key(0), ()).shape == ()
    assert rng.normal(rng.key(0), (0, 3)).shape == (0, 3)


def test_seeded_depends_on_the_key_alone_and_restores_the_generator():
    def inside(key):
        with rng.seeded(key):
            return torch.rand(4)

    before = torch.get_rng_state()
    first = inside(rng.key(0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(inside(rng.key(0)), first)
    assert not torch.equal(inside(rng.key(1)), first)


def test_seeded_restores_the_generator_after_an_exception():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="cannot be multiplied"), rng.seeded(rng.key(0)):
        torch.rand(4, 5) @ torch.rand(4, 5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(4,), (2, 3), ()])
def test_several_keys_split_as_each_of_them_does(shape):
    """`[...]` keys into three tensors of as many, and the same numbers as from one key at a time."""
    keys = rng.bits(rng.key(1), shape)
    parts = rng.split(keys, 3)
    assert [part.shape for part in parts] == [torch.Size(shape)] * 3
    for index in itertools.product(*map(range, shape)):
        assert [int(part[index]) for part in parts] == [int(part) for part in rng.split(keys[index], 3)]


def test_several_keys_fold_in_as_each_of_them_does():
    keys = torch.stack(rng.split(rng.key(0), 5))
    assert rng.fold_in(keys, 7).tolist() == [int(rng.fold_in(key, 7)) for key in keys]
    assert len(set(rng.fold_in(keys, 7).tolist()) | set(rng.fold_in(keys, 8).tolist())) == 10


def test_under_vmap_over_keys_hidden_generators_are_left_alone_and_refused():
    """One seed would give all members the same numbers."""
    keys = torch.stack(rng.split(rng.key(0), 3))

    def drawing(key):
        with rng.seeded(key):
            return torch.rand(2) + rng.uniform(key, (2,))

    def grad(key):
        """The key is under two transforms here, and no batch on its surface."""

        def loss(x):
            with rng.seeded(key + (0 * x).long()):
                return x * rng.uniform(key, ())

        return torch.func.grad(loss)(torch.tensor(1.0))

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="random"):
        torch.vmap(drawing)(keys)
    assert torch.equal(torch.vmap(grad)(keys), torch.stack([rng.uniform(key, ()) for key in keys]))
    assert torch.equal(torch.get_rng_state(), before)


def test_under_other_transforms_one_key_still_seeds():
    key = rng.key(3)

    def drawn(x):
        with rng.seeded(key):
            return x * torch.rand(2).sum()

    with rng.seeded(key):
        expected = torch.rand(2).sum()
    assert torch.func.grad(drawn)(torch.tensor(2.0)) == expected
    assert torch.equal(torch.vmap(drawn, randomness="same")(torch.ones(3)), expected.expand(3))


def test_what_is_given_is_not_written_on():
    """Words are mixed in place, but never those of the caller."""
    key, several, data, rows = rng.key(3), torch.arange(4), torch.arange(5), torch.tensor([2, 0])
    before = [one.clone() for one in (key, several, data, rows)]
    rng.fold_in(key, 7)
    rng.fold_in(key, data)
    rng.split(key, 3)
    rng.split(several, 2)
    rng.bits(key, (2, 1), rows=rows)
    rng.randint(key, (6,), 5)
    rng.normal(key, (6,))
    for draw in (rng.uniform, rng.normal, rng.gumbel):
        torch.vmap(lambda one, draw=draw: draw(one, (3,)))(several)
    torch.vmap(lambda one: rng.fold_in(key, one))(data)
    for one, was in zip((key, several, data, rows), before, strict=True):
        assert torch.equal(one, was)
