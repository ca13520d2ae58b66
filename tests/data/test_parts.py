"""Parts of data by any of their names: folders, shards, arrays, files and columns."""

import csv

import numpy as np
import pytest
import torch
from pictures import members_of, random_levels, save, shard

from metapl.core import rng
from metapl.data.sources import STORED, parts
from metapl.data.split import Wanted, split
from metapl.registry.errors import InputError

SIZES = {"train": 12, "validation": 6, "test": 4}


def folders(path, names):
    """Images that tell their part and class, in folders of these names."""
    for part, name in names.items():
        for index in range(SIZES[part]):
            label = "ab"[index % 2]
            levels = random_levels(6, 7, seed=1000 * len(part) + index)
            save(path / name / label / f"{index}.png", levels)
    return STORED["folder"].load(path)


def rows(path, part, name="t.csv", **more):
    with (path / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", *more, "label"])
        for index in range(SIZES[part]):
            extra = [value[index % len(value)] for value in more.values()]
            writer.writerow([1000 * len(part) + index**2, index % 5, *extra, "xy"[index % 2]])


def sizes(data):
    given = 0 if data.validation is None else len(data.validation)
    return len(data.y) - given, given, len(data.y_test)


def values(data, column=0):
    """The first column of the table's pool and test, as it was written."""
    scale = data.form.details["columns"][column]
    return [(x[:, column].double() * scale["std"] + scale["mean"]).round().int() // 1000 for x in (data.x, data.x_test)]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["train", "Train", "TRAINING", "train_set", "trn", "Train-Images", "train data"], "train"),
        (["test", "Testing", "TST", "test_set", "held-out", "holdout"], "test"),
        (["val", "Valid", "VALIDATION", "dev", "eval", "val_images", "devset"], "validation"),
        (["unlabelled", "Unlabeled", "unsup", "unlabeled_data"], "unlabelled"),
        (["cat", "trains", "validity", "tests", "device", "trained", "", "-"], None),
    ],
)
def test_names_of_parts(names, part):
    assert [parts.name_of(name) for name in names] == [part] * len(names)


# ---------------------------------------------------------------- folders and shards


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("training", "testing"), ("TRAIN_SET", "TEST_SET")])
def test_train_and_test_by_any_name_are_no_classes(tmp_path, train, test):
    data = folders(tmp_path, {"train": train, "test": test})
    assert data.form.classes == ("a", "b")
    assert sizes(data) == (12, 0, 4)


@pytest.mark.parametrize("name", ["val", "Valid", "validation", "dev", "eval"])
def test_a_validation_folder_beside_a_test_is_the_validation_set(tmp_path, name):
    data = folders(tmp_path, {"train": "train", "validation": name, "test": "test"})
    assert sizes(data) == (12, 6, 4)
    expected = [random_levels(6, 7, seed=10000 + index) for index in (0, 1, 2, 3, 4, 5)]
    assert data.validation is not None
    np.testing.assert_array_equal(data.x[data.validation][:, 0].numpy(), expected)
    assert data.y[data.validation].tolist() == [0, 1] * 3


@pytest.mark.parametrize("name", ["val", "Valid", "dev"])
def test_a_validation_folder_alone_is_the_test(tmp_path, name):
    data = folders(tmp_path, {"train": "train", "validation": name})
    assert sizes(data) == (12, 0, 6)
    assert any(note.about == "test" and f"{name}/ is the test set" in note.text for note in data.notes)


def test_two_folders_of_one_part_are_refused(tmp_path):
    folders(tmp_path, {"train": "train", "validation": "val"})
    with pytest.raises(InputError, match=r"train, .*training|Training, train all name the train: keep one"):
        folders(tmp_path, {"train": "Training"})


def test_a_folder_beside_the_parts_is_said_to_be_left_out(tmp_path):
    save(tmp_path / "masks" / "1.png", random_levels(6, 7))
    data = folders(tmp_path, {"train": "train", "test": "Test"})
    assert [note.text for note in data.notes] == ["masks/ beside train/"]


def test_parts_without_classes_are_refused(tmp_path):
    for name in ("Train", "Test"):
        save(tmp_path / name / "1.png", random_levels(6, 7))
    with pytest.raises(InputError, match=r"no class folders: put the images of each class"):
        STORED["folder"].load(tmp_path)


def test_shards_in_parts(tmp_path):
    for part, name in (("train", "Training"), ("validation", "valid"), ("test", "TEST")):
        x = random_levels(SIZES[part], 6, 7, seed=len(part))
        shard(tmp_path / name / "1.tar", members_of(x, [index % 2 for index in range(len(x))]))
    assert STORED["shards"].recognise(tmp_path)
    assert sizes(STORED["shards"].load(tmp_path)) == (12, 6, 4)


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize(("x", "y"), [("x_val", "y_val"), ("X_valid", "y_valid"), ("x_dev", "y_dev")])
def test_validation_arrays(tmp_path, x, y):
    made = {part: np.random.default_rng(len(part)).normal(size=(size, 3)) for part, size in SIZES.items()}
    labels = {part: np.arange(size) % 2 for part, size in SIZES.items()}
    named = {"x_train": made["train"], "y_train": labels["train"], x: made["validation"], y: labels["validation"]}
    more = np.full((5, 3), 9.0)
    np.savez(tmp_path / "a.npz", **named, x_test=made["test"], y_test=labels["test"], x_unlabelled=more)
    data = STORED["arrays"].load(tmp_path / "a.npz")
    assert sizes(data) == (17, 6, 4)
    scale = data.form.details
    back = data.x[data.validation].double().numpy() * scale["std"] + scale["mean"]
    np.testing.assert_allclose(back, made["validation"], atol=1e-5)
    assert data.y.tolist() == [*labels["train"], *labels["validation"], *[-1] * 5]
    np.savez(tmp_path / "b.npz", **named)
    assert sizes(STORED["arrays"].load(tmp_path / "b.npz")) == (12, 0, 6)


def test_arrays_of_other_names_are_said_to_be_left_out(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(8, 3)), y=[0, 1] * 4, ids=np.arange(8))
    assert [note.text for note in STORED["arrays"].load(tmp_path / "a.npz").notes] == ["arrays of other names: ids"]


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("name", ["split", "Subset", "partition"])
def test_a_column_of_parts(tmp_path, name):
    cells = ["Train", "test", "train", "valid", "training", "unlabelled"]
    rows(tmp_path, "train", **{name: cells})
    data = STORED["table"].load(tmp_path / "t.csv")
    assert sizes(data) == (8, 2, 2)
    assert [column["name"] for column in data.form.details["columns"]] == ["a", "b"]
    assert data.y.tolist() == [0, 0, 0, -1, 0, 0, 0, -1, 1, 1]
    assert any(note.about == "split" and "8 train, 2 test, 2 validation" in note.text for note in data.notes)


def test_a_column_of_parts_by_its_name(tmp_path):
    rows(tmp_path, "train", where=["train", "test", "", "dev"])
    load = STORED["table"].load
    assert sizes(load(tmp_path / "t.csv", split="where")) == (6, 3, 3)
    assert sizes(load(tmp_path / "t.csv", ignore="where")) == (10, 0, 2)
    with pytest.raises(InputError, match=r"t.csv, line 2: column 'b' has '0', which names no part: write train"):
        load(tmp_path / "t.csv", split="b")


@pytest.mark.parametrize("cells", [["1", "2"], ["train", "bus"], ["left", "right"]])
def test_another_column_of_that_name_is_a_feature(tmp_path, cells):
    rows(tmp_path, "train", split=cells)
    assert "split" in [column["name"] for column in STORED["table"].load(tmp_path / "t.csv").form.details["columns"]]


def test_files_of_parts(tmp_path):
    load = STORED["table"].load
    for part in SIZES:
        rows(tmp_path, part, f"{part}.csv")
    data = load(tmp_path / "train.csv", validation_file="validation.csv", test_file="test.csv")
    assert sizes(data) == (12, 6, 4)
    pool, test = values(data)
    assert pool.tolist() == [5] * 12 + [10] * 6
    assert test.tolist() == [4] * 4
    assert sizes(load(tmp_path / "train.csv", validation_file="validation.csv")) == (12, 0, 6)
    rows(tmp_path, "train", "cut.csv", split=["train", "test"])
    with pytest.raises(InputError, match=r"cut.csv: two sets for the test, by its column and by a file: leave one out"):
        load(tmp_path / "cut.csv", test_file="test.csv")


# ---------------------------------------------------------------- the split


def test_the_validation_set_of_the_data_is_the_validation_of_the_split():
    y, given = torch.arange(60) % 3, torch.arange(40, 52)
    parts_of = split(y, "abc", Wanted(labels=6, given=given), rng.key(0))
    assert parts_of.validation.tolist() == given.tolist()
    assert parts_of.unlabelled.tolist() == [*range(40), *range(52, 60)]
    assert not torch.isin(parts_of.labelled, given).any()
    some = split(y, "abc", Wanted(labels=6, validation=6, given=given), rng.key(0))
    assert torch.isin(some.validation, given).all()
    assert y[some.validation].bincount().tolist() == [2, 2, 2]
    assert not torch.isin(some.unlabelled, given).any()
    none = split(y, "abc", Wanted(labels=6, validation=0, given=given), rng.key(0))
    assert not len(none.validation)
    assert none.unlabelled.tolist() == list(range(60))
    with pytest.raises(InputError, match="--validation 13: the data has a validation set of 12: give 3 to 12"):
        split(y, "abc", Wanted(labels=6, validation=13, given=given), rng.key(0))


def test_every_label_is_used_where_some_are_missing_beside_a_validation_set():
    y = torch.tensor([0, 1, -1, -1, 0, 1])
    found = split(y, "ab", Wanted(given=torch.tensor([4, 5])), rng.key(0))
    assert (found.labelled.tolist(), found.validation.tolist()) == ([0, 1], [4, 5])
