"""Features of a network as a data set, against numpy."""

import re
from collections import Counter

import numpy as np
import pytest
import torch

from metapl.core import rng
from metapl.data import inputs
from metapl.data.augment import presets
from metapl.data.augment.stored import pick
from metapl.data.augment.tabular import relative_noise
from metapl.data.formats import features
from metapl.data.sources import STORED
from metapl.data.sources.held_out import hold_out
from metapl.registry.errors import InputError

load = STORED["arrays"].load
GENERATOR = np.random.default_rng(0)
X = np.maximum(GENERATOR.normal(size=(30, 130)), 0).astype(np.float32)
Y = np.arange(30) % 3


def save(place, **named):
    np.savez(place / "own.npz", **named)
    return place / "own.npz"


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


SIGNED = GENERATOR.normal(size=(30, 130)).astype(np.float32)


@pytest.mark.parametrize(
    ("found", "because"),
    [
        ({"x": X}, "130 numbers each, none negative"),
        ({"x": unit(SIGNED)}, "130 numbers each, of length 1"),
        ({"x": unit(SIGNED).astype(np.float16)}, "130 numbers each, stored as float16"),
        ({"x": SIGNED, "encoder": np.array("a network\nof mine")}, "made by a network of mine"),
        ({"x": X[:, :3], "encoder": np.array("mine")}, "made by mine"),
        ({"x": SIGNED}, ""),
        ({"x": X[:, :127]}, ""),
        ({"x": unit(SIGNED) * 1.1}, ""),
        ({"x": np.ones((3, 200), np.uint8)}, ""),
        ({"x": np.ones((3, 200, 2), np.float32)}, ""),
    ],
)
def test_what_is_taken_for_features(found, because):
    assert features.recognise(found) == because


def test_features_have_length_one(tmp_path):
    data = load(save(tmp_path, x=7 * X, y=Y, x_test=X[:4], y_test=Y[:4]))
    assert (data.form.kind, data.form.shape) == ("features", (130,))
    np.testing.assert_allclose(data.augment.prepare(data.x), unit(X), rtol=1e-6)
    np.testing.assert_allclose(inputs.prepare(data.form)(data.x_test), unit(X[:4]), rtol=1e-6)
    np.testing.assert_array_equal(data.x, 7 * X)  # stored as they are


@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2"])
def test_numbers_of_any_kind(tmp_path, dtype):
    data = load(save(tmp_path, x=X.astype(dtype), y=Y, encoder="mine"))
    assert data.x.dtype == (torch.float16 if dtype == "<f2" else torch.float32)
    pool = hold_out(torch.from_numpy(Y), 0.2, rng.key(0))[0]
    np.testing.assert_allclose(data.augment.prepare(data.x), unit(X)[pool], atol=1e-3 if dtype == "<f2" else 1e-6)


def test_the_scale_can_be_said(tmp_path):
    place = save(tmp_path, x=X, y=Y, x_test=X[:4] + 1, y_test=Y[:4])
    plain = load(place, scale="none")
    np.testing.assert_allclose(plain.augment.prepare(plain.x), X)
    standard = load(place, scale="standard")
    mean, std = X.astype(np.float64).mean(0), X.astype(np.float64).std(0)
    np.testing.assert_allclose(standard.augment.prepare(standard.x), (X - mean) / std, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(standard.augment.prepare(standard.x_test), (X[:4] + 1 - mean) / std, rtol=1e-5)
    numbers = save(tmp_path, x=SIGNED, y=Y)
    assert load(numbers).form.kind == "arrays"
    chosen = load(numbers, scale="unit")
    assert (chosen.form.kind, chosen.form.details["because"]) == ("features", "scale=unit")


def test_what_they_were_taken_for_is_told(tmp_path):
    place = save(tmp_path, x=X, y=Y)
    for scale, done in (("auto", "divided by its length"), ("standard", "standardised"), ("none", "as it is")):
        data = load(place, scale=scale)
        assert f"(130 numbers each, none negative), each {done};" in features.description(data.form, data.x.shape)
    assert "each divided by its length, 5 stored views of each;" in features.description(load(place).form, (9, 6, 130))


# ---------------------------------------------------------------- stored views


def stored_views(weak=2, strong=3):
    """View v of example i has the number 10 v + i / 100 in its first feature; the others say which kind it is."""
    made = [np.zeros((30, 130), np.float16) + 1 for _ in range(1 + weak + strong)]
    for number, one in enumerate(made):
        one[:, 0], one[:, 1] = number, np.arange(30)
    return {"x": made[0], "x_weak": np.stack(made[1 : 1 + weak]), "x_strong": np.stack(made[1 + weak :])}


@pytest.mark.parametrize("own_test", [True, False])
def test_views_are_drawn_from_the_stored_ones(tmp_path, own_test):
    test = {"x_test": np.ones((3, 130), np.float16), "y_test": Y[:3]} if own_test else {}
    data = load(save(tmp_path, y=Y, encoder="mine", **stored_views(), **test), scale="none")
    pool = torch.arange(30) if own_test else hold_out(torch.from_numpy(Y), 0.2, rng.key(0))[0]
    assert data.x.shape == (len(pool), 6, 130)
    assert data.x_test.ndim == 2
    ready = data.augment.prepare(data.x)
    assert ready[:, 0].tolist() == [0] * len(pool)
    assert ready[:, 1].tolist() == pool.tolist()  # each has its own views, held-out ones or not
    seen = Counter()
    for key in map(rng.key, range(200)):
        for kind, view in (("weak", data.augment.weak), ("strong", data.augment.strong)):
            drawn = data.augment.prepare(view(data.augment.shared(data.x, key), key))
            assert drawn[:, 1].tolist() == pool.tolist()
            seen.update((kind, number) for number in drawn[:, 0].tolist())
    expected = {("weak", 1): 2, ("weak", 2): 2, ("strong", 3): 3, ("strong", 4): 3, ("strong", 5): 3}
    assert seen.keys() == expected.keys()
    for found, share in expected.items():
        assert abs(seen[found] / (200 * len(pool)) - 1 / share) < 0.03


def test_a_pick_goes_through_vmap():
    x = torch.randn(4, 5, 6, 3)
    keys = torch.stack([rng.key(seed) for seed in range(4)])
    together = torch.vmap(pick(2, 6))(x, keys)
    assert torch.equal(together, torch.stack([pick(2, 6)(one, key) for one, key in zip(x, keys, strict=True)]))
    with pytest.raises(ValueError, match="no row"):
        pick(2, 2)


def test_jitter_looks_at_the_example_alone(tmp_path):
    data = load(save(tmp_path, y=Y, encoder="mine", **stored_views()), scale="none")
    views = presets.jitter(data.form, noise=0.0, drop=0.0)
    for view in (views.weak, views.strong):
        np.testing.assert_array_equal(views.prepare(view(views.shared(data.x, rng.key(0)), rng.key(1))), data.x[:, 0])


def test_relative_noise_is_as_large_as_it_says():
    x = torch.randn(50, 2000, dtype=torch.float64) * torch.logspace(-3, 3, 50, dtype=torch.float64)[:, None]
    change = relative_noise(0.3)(x, rng.key(0)) - x
    share = change.square().mean(1).sqrt() / x.square().mean(1).sqrt()
    np.testing.assert_allclose(share, 0.3, rtol=0.08)
    assert relative_noise(0.1)(x.half(), rng.key(0)).dtype == torch.float32
    with pytest.raises(ValueError, match="negative"):
        relative_noise(-0.1)


# ---------------------------------------------------------------- fresh ones, and what is refused


def test_fresh_features_are_read_as_the_trained_ones(tmp_path):
    data = load(save(tmp_path, x=X.astype(np.float16), y=Y))
    np.save(tmp_path / "fresh.npy", 3 * X[:5])
    found = inputs.read(data.form, [tmp_path / "fresh.npy"])
    np.testing.assert_allclose(inputs.prepare(data.form)(found.x), unit(X[:5]), rtol=1e-6)
    assert found.names[1].endswith("fresh.npy[1]")
    more = inputs.with_unlabelled(data, str(tmp_path / "fresh.npy"))
    assert (len(more.x), more.x.dtype, more.y[-5:].tolist()) == (len(data.x) + 5, torch.float16, [-1] * 5)
    np.save(tmp_path / "fresh.npy", X[:5, 1:])
    with pytest.raises(InputError, match=re.escape("examples of shape (129,), but the run learnt from (130,)")):
        inputs.read(data.form, [tmp_path / "fresh.npy"])


@pytest.mark.parametrize(
    ("change", "scale", "words"),
    [
        ({}, "long", "unknown scale 'long'"),
        ({"x": np.zeros((30, 4, 4), np.float32)}, "unit", "scale=unit is for vectors"),
        ({"x_weak": None}, "auto", "views need x_weak and x_strong"),
        ({"x_unlabelled": np.zeros((4, 130), np.float16)}, "auto", "of all examples"),
        ({"x_strong": np.zeros((3, 30, 129), np.float16)}, "auto", "give [views, 30, 130]"),
        ({"x_strong": np.zeros((30, 130), np.float16)}, "auto", "give [views, 30, 130]"),
        ({"x_strong": np.full((3, 30, 130), np.nan, np.float16)}, "auto", "x_strong: holds NaN"),
        ({"encoder": None, "x": SIGNED[:, :9]}, "auto", "x_weak is for features: give scale=unit"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, change, scale, words):
    whole = {"y": Y, "encoder": "mine", **stored_views(), **change}
    place = save(tmp_path, **{name: value for name, value in whole.items() if value is not None})
    with pytest.raises(InputError, match=re.escape(words)) as raised:
        load(place, scale=scale)
    assert "\n" not in str(raised.value)


def test_stored_views_take_no_more_examples(tmp_path):
    data = load(save(tmp_path, y=Y, encoder="mine", **stored_views()))
    np.save(tmp_path / "more.npy", X)
    with pytest.raises(InputError, match="has stored views and takes no more examples"):
        inputs.with_unlabelled(data, str(tmp_path / "more.npy"))
