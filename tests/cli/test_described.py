"""What a run says of its data before it learns: notes, labels that are not used, views, balance."""

import numpy as np
import pytest
from pictures import random_levels, save

from metapl.cli.described import described
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare


def lines(**options):
    return described(prepare(TrainConfig(device="cpu", model="mlp", **options)))


@pytest.fixture
def photos(tmp_path):
    for label, count in (("cat", 12), ("dog", 30)):
        for number in range(count):
            save(tmp_path / label / f"{number}.png", random_levels(8, 8, 3, seed=count * 100 + number))
    return str(tmp_path)


def test_labels_that_nobody_learns_from(photos):
    """A fifth of both classes is the test, and a fifth of the rest the validation."""
    assert "labels     26 of 28 known labels are not used, as if they were unknown: --labels N uses N of them" in lines(
        data=photos
    )
    assert not [line for line in lines(data=photos, labels=10) if line.startswith("labels")]


def test_no_label_is_unused_where_some_are_missing(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(40, 3)), y=[0, 1, 2, -1] * 10)
    found = lines(data=f"{tmp_path}/a.npz")
    assert [line for line in found if line.startswith("labels")] == ["labels     '-1' means no label: 10 examples"]


def test_views_and_how_to_have_others(photos, tmp_path):
    assert "views      small, mirrored: --augment small:flip=no if left is not right" in lines(data=photos)
    assert "views      large, mirrored: --augment large:flip=false if left is not right" in lines(
        data=f"{photos}:size=128"
    )
    assert "views      crop, not mirrored" in lines(data=f"{photos}:channels=1")
    assert not [line for line in lines(data=photos, augment="plain") if line.startswith("views")]
    assert not [line for line in lines(data="digits") if line.startswith("views")]


def test_the_balance_of_the_labelled_examples(photos):
    assert "balance    3 to 7 labelled examples a class" in lines(data=photos, labels=10, balanced=False)
    assert not [line for line in lines(data=photos, labels=10) if line.startswith("balance")]
