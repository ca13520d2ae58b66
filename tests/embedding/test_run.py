"""Embedding a data set: features against numpy, and what the cache knows after a stop, a change and damage."""

import json
import pickle

import numpy as np
import pytest
import torch

from metapl.data.augment.base import Augment, identity, noise
from metapl.data.form import Form
from metapl.data.sources import Dataset
from metapl.embedding import cache, run
from metapl.embedding.encoder import Encoder
from metapl.embedding.run import Wanted
from metapl.registry.errors import InputError

X = torch.arange(35.0).view(7, 5) / 7
FORM = Form("arrays", (5,), ("a", "b"), {"mean": 0.0, "std": 1.0})
DATA = Dataset(X, torch.arange(7) % 2, X[:3] + 1, torch.arange(3) % 2, Augment(identity, noise(0.1)), FORM)


class Stopped(BaseException):
    """As `KeyboardInterrupt`, which would end the tests too."""


class Counted:
    """Features x², a call of which is counted; the one of this number stops it."""

    def __init__(self, stop=-1, name="square"):
        self.calls, self.stop = 0, stop
        self.encoder = Encoder(name, name, 5, self.encode)

    def encode(self, x):
        if self.calls == self.stop:
            raise Stopped
        self.calls += 1
        return x.square()


def silent(count, known):
    del count, known


def embed(counted, folder, data=DATA, **wanted):
    return run.dataset(counted.encoder, data, Wanted(batch=3, cache=folder, **wanted), silent)


def test_all_examples_are_embedded_in_their_order(tmp_path):
    arrays = embed(Counted(), tmp_path)
    np.testing.assert_array_equal(arrays["x"], (X.numpy() ** 2).astype(np.float16))
    np.testing.assert_array_equal(arrays["x_test"], ((X[:3].numpy() + 1) ** 2).astype(np.float16))
    assert (arrays["y"].tolist(), arrays["y_test"].tolist()) == (DATA.y.tolist(), DATA.y_test.tolist())
    assert arrays["classes"].tolist() == ["a", "b"]
    assert set(arrays) == {"x", "y", "x_test", "y_test", "classes", "encoder"}


def test_a_second_call_answers_from_the_cache(tmp_path):
    first, second, told = Counted(), Counted(stop=0), []
    made = embed(first, tmp_path, views=2)
    again = run.dataset(second.encoder, DATA, Wanted(2, batch=3, cache=tmp_path), lambda *one: told.append(one))
    assert first.calls == 3 * 5 + 1
    assert {known for _, known in told} == {True}
    assert sum(count for count, _ in told) == 7 * 5 + 3
    assert all(np.array_equal(made[name], again[name]) for name in made)


def test_a_stopped_call_goes_on_where_it_stopped(tmp_path):
    whole = embed(Counted(), None, views=1)
    with pytest.raises(Stopped):
        embed(Counted(stop=4), tmp_path, views=1)
    rest = Counted()
    made = embed(rest, tmp_path, views=1)
    assert rest.calls == 3 * 3 + 1 - 4
    assert all(np.array_equal(made[name], whole[name]) for name in made)
    assert not list(tmp_path.rglob("*.tmp*"))


def test_only_what_changed_is_made_again(tmp_path):
    embed(Counted(), tmp_path)
    changed, other = Counted(), Counted(name="other")
    x = X.clone()
    x[4, 2] += 1
    found = embed(changed, tmp_path, DATA._replace(x=x))
    assert changed.calls == 1
    np.testing.assert_array_equal(found["x"], (x.numpy() ** 2).astype(np.float16))
    embed(other, tmp_path)
    assert other.calls == 4


def test_views_are_the_data_sets_own(tmp_path):
    arrays = embed(Counted(), tmp_path, views=3)
    assert arrays["x_weak"].shape == arrays["x_strong"].shape == (3, 7, 5)
    assert all(np.array_equal(one, arrays["x"]) for one in arrays["x_weak"])  # the weak view is the example
    assert all(not np.array_equal(one, arrays["x"]) for one in arrays["x_strong"])
    assert not np.array_equal(*arrays["x_strong"][:2])
    change = np.sqrt(arrays["x_strong"].astype(np.float64)) - X.numpy()
    assert 0.05 < np.abs(change[:, 2:]).mean() < 0.12  # 0.1 · √(2/π)
    fewer = embed(Counted(), None, views=1)
    assert np.array_equal(fewer["x_strong"][0], arrays["x_strong"][0])  # a view does not depend on how many there are
    otherwise = Counted()
    embed(otherwise, tmp_path, views=3, drawn="otherwise")
    assert otherwise.calls == 3 * 6  # the examples themselves are known


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    place = content.index(b"NUMPY") + 128  # a number behind the header
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("spoil", [cut, flip, lambda _: b"", lambda _: pickle.dumps(Harmful()), lambda _: b"PK\3\4"])
def test_a_damaged_file_is_made_again(tmp_path, caplog, spoil):
    whole = embed(Counted(), tmp_path)
    place = sorted(tmp_path.rglob("*.npz"))[1]
    place.write_bytes(spoil(place.read_bytes()))
    again = Counted()
    made = embed(again, tmp_path)
    assert again.calls == 1
    assert str(place.name) in caplog.text
    assert all(np.array_equal(made[name], whole[name]) for name in made)
    embed(Counted(stop=0), tmp_path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros((3, 4), np.float16)},
        {"x": np.zeros((3, 5), np.float32)},
        {"y": np.zeros((3, 5), np.float16)},
        {"x": np.array([[Harmful()] * 5] * 3)},
    ],
)
def test_a_file_of_something_else_counts_as_none(tmp_path, arrays):
    embed(Counted(), tmp_path)
    for place in tmp_path.rglob("*.npz"):
        np.savez(place, **arrays)
    again = Counted()
    embed(again, tmp_path)
    assert again.calls >= 3


@pytest.mark.parametrize("number", [np.nan, 1e5])
def test_what_float16_cannot_hold_is_refused(number):
    x = X.clone()
    x[0, 0] = number
    with pytest.raises(InputError, match="features beyond 65,504 or NaN"):
        embed(Counted(), None, DATA._replace(x=x))


def test_a_batch_is_known_by_its_content():
    assert cache.content(X) == cache.content(X.clone()) != cache.content(X.double())
    assert cache.content(X) != cache.content(X.view(5, 7))
    assert len({cache.content(texts) for texts in (["a", "b"], ["ab"], ['a", "b'], ["b", "a"])}) == 4


def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        embed(Counted(), tmp_path / "file")


def test_the_place_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default() == tmp_path / "metapl" / "features"
    assert json.dumps(str(cache.place(tmp_path, "a")))  # a path below it
    assert cache.place(tmp_path, "a") != cache.place(tmp_path, "b")
