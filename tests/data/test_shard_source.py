"""Shards as a data set, against the arrays that went into them."""

import numpy as np
import pytest
import torch
from pictures import members_of, png, random_levels, shard

from metapl.data.sources import STORED
from metapl.registry.errors import InputError

load, recognise = STORED["shards"][:2]

LEVELS = random_levels(10, 6, 7)
TARGETS = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


@pytest.fixture
def folder(tmp_path):
    """Ten images in two shards."""
    for number, (start, end) in enumerate([(0, 4), (4, 10)]):
        shard(tmp_path / f"{number:03d}.tar", members_of(LEVELS[start:end], TARGETS[start:end], start))
    return tmp_path


def test_shards_are_a_data_set(folder):
    data = load(folder, test=0.3)
    assert data.form.classes == ("0", "1", "2")
    assert data.form.shape == (1, 6, 7)
    assert sorted(data.y_test.tolist()) == [0, 1, 2]
    x = torch.cat([data.x, data.x_test])[:, 0].numpy()
    y = torch.cat([data.y, data.y_test]).tolist()
    found = {one.tobytes(): label for one, label in zip(x, y, strict=True)}
    assert found == {one.tobytes(): label for one, label in zip(LEVELS, TARGETS, strict=True)}


def test_shards_with_a_test_set_and_unlabelled_ones(folder):
    parts = folder / "parts"
    shard(parts / "train" / "a.tar", [*members_of(LEVELS[:4], [0, 1, 0, 1]), ("unknown.png", png(LEVELS[4]))])
    shard(parts / "val" / "a.tar", members_of(LEVELS[5:7], [1, 0]))
    shard(parts / "unlabelled" / "deep" / "a.tar", [("a.png", png(LEVELS[7]))])
    shard(folder / "more.tar", [("a.png", png(LEVELS[8]))])
    data = load(parts, unlabelled=str(folder / "more.tar"))
    np.testing.assert_array_equal(data.x[:, 0].numpy(), LEVELS[[0, 1, 2, 3, 4, 7, 8]])
    assert data.y.tolist() == [0, 1, 0, 1, -1, -1, -1]
    np.testing.assert_array_equal(data.x_test[:, 0].numpy(), LEVELS[5:7])
    assert data.y_test.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([0, 0], None, r"1 classes, two at least are needed: write KEY\.cls"),
        ([0, 0, 2, 2], None, r"class '1' has no images in .*: number the classes without gaps"),
        ([0, 999999999], None, r"class '1' has no images in .*: number the classes without gaps"),
        ([0, 0, 1, 1], [2], r"/000000\.png: its label is not among those of train: give it one of 0 … 1"),
    ],
)
def test_labels_that_are_not_0_1_2_are_refused(tmp_path, train, test, message):
    shard(tmp_path / "train" / "a.tar", members_of(LEVELS[: len(train)], train))
    if test:
        shard(tmp_path / "test" / "a.tar", members_of(LEVELS[: len(test)], test))
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_shards_are_recognised(folder, tmp_path):
    shard(folder / "parts" / "train" / "a.tar", [])
    (folder / "empty").mkdir()
    found = {name: recognise(folder / name) for name in ("", "000.tar", "parts", "empty", "nowhere")}
    assert found == {"": True, "000.tar": True, "parts": True, "empty": False, "nowhere": False}
