"""What tells data from other data: every change that a stranger or an accident makes, and none that rounding makes."""

import hashlib
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metapl.core import rng
from metapl.data.augment import presets
from metapl.data.examples import Subset
from metapl.data.fingerprint import FINGERPRINT, differences, fingerprint
from metapl.data.form import Form
from metapl.data.sources.base import Dataset
from metapl.files import schema

quick = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def data(dtype=torch.float32, classes=("a", "b")):
    form = Form("arrays", (5,), classes, {"mean": 0.0, "std": 1.0})
    x, x_test = (rng.normal(rng.key(seed), (40, 5)) for seed in (0, 1))
    if dtype == torch.uint8:
        x, x_test = ((50 * one + 128).clamp(0, 255).to(dtype) for one in (x, x_test))
    y = torch.arange(40) % 2
    return Dataset(x, y, x_test, y.flip(0), presets.default(form), form)


def changed(one, **parts):
    return differences(json.loads(json.dumps(fingerprint(one))), fingerprint(one._replace(**parts)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_the_same_data_is_the_same(dtype):
    assert changed(data(dtype)) == []


def test_labels_and_examples_are_hashed_as_they_are_in_memory():
    one = data()
    found = fingerprint(one)["test"]
    assert found["labels"] == hashlib.sha256(one.y_test.numpy().tobytes()).hexdigest()
    assert found["examples"] == hashlib.sha256(one.x_test.numpy().tobytes()).hexdigest()
    assert found["shape"] == [40, 5]


@quick
@given(st.integers(0, 39), st.integers(0, 4))
def test_one_level_is_seen(row, column):
    one = data(torch.uint8)
    other = one.x_test.clone()
    other[row, column] ^= 1
    assert changed(one, x_test=other) == ["examples of the test set"]


@quick
@given(st.integers(0, 39), st.integers(0, 4), st.sampled_from([0.01, -0.3]))
def test_one_number_is_seen(row, column, step):
    one = data()
    other = one.x.clone()
    other[row, column] += step
    assert changed(one, x=other) == ["examples of the training pool"]


@quick
@given(st.integers(0, 2**20))
def test_rounding_is_not(seed):
    one = data()
    other = one.x * (1 + 1e-7 * rng.normal(rng.key(seed), one.x.shape))
    assert changed(one, x=other) == []


def test_other_rows_of_the_same_numbers_are_seen():
    one = data()
    assert changed(one, x_test=one.x_test.flip(0)) == ["examples of the test set"]


def test_labels_classes_counts_and_types():
    one = data()
    assert changed(one, y_test=1 - one.y_test) == ["labels of the test set"]
    assert changed(one, form=one.form._replace(classes=("a", "c"))) == ["the names of the classes"]
    assert changed(one, form=one.form._replace(classes=("a\0b",))) != []
    assert changed(one, x_test=one.x_test[:39], y_test=one.y_test[:39]) == [
        "the test set (shape [39, 5], then [40, 5])"
    ]
    assert changed(one, x=one.x.double()) == ["examples of the training pool"]


def test_of_streamed_examples_some_are_read():
    """Evenly spaced ones: all of 40, a few of many."""
    one = data(torch.uint8)
    streamed = one._replace(x=Subset(one.x, torch.arange(40)))
    assert differences(fingerprint(one), fingerprint(streamed)) == []
    many = torch.arange(2560) % 40
    x = Subset(one.x, many)
    some = fingerprint(one._replace(x=x, y=many % 2))["train"]["examples"]
    assert some == hashlib.sha256(one.x[many[::10]].numpy().tobytes()).hexdigest()


def test_a_fingerprint_is_checked_when_it_is_read():
    found = fingerprint(data())
    assert schema.parse(json.dumps(found), "f") == FINGERPRINT(found, "f")
    for name in ("shape", "dtype", "labels", "examples", "sums"):
        with pytest.raises(ValueError, match=f"^f: test: {name} is"):
            FINGERPRINT({**found, "test": {**found["test"], name: None}}, "f")
