"""Copies and groups on one side of the test: files, arrays, rows."""

import csv

import numpy as np
import pytest
import torch
from pictures import random_levels, save

from metapl.core import rng
from metapl.data import groups, inputs
from metapl.data.formats import images
from metapl.data.notes import CAREFUL
from metapl.data.sources import STORED, held_out, labelled_files
from metapl.data.split import Wanted, split
from metapl.registry.errors import InputError

load = STORED["folder"].load


def image(label, number):
    return random_levels(6, 7, seed=100 * label + number)


def folder(path, names=("{}.png",), count=20):
    """Two classes; each image by every one of the names."""
    for label in (0, 1):
        for number in range(count):
            for name in names:
                save(path / "ab"[label] / name.format(number), image(label, number))
    return path


def keys(x):
    return [one.numpy().tobytes() for one in x]


def said(data, about):
    return [note.text for note in data.notes if note.about == about]


# ---------------------------------------------------------------- copies


def test_copies_are_on_one_side_of_what_is_held_out(tmp_path):
    data = load(folder(tmp_path, ("{}.png", "{} (copy).png")))
    assert not set(keys(data.x)) & set(keys(data.x_test))
    assert data.y_test.bincount().tolist() == [8, 8]
    assert len(data.y) + len(data.y_test) == 80
    assert said(data, "copies") == ["40 examples are copies of others, all on one side of the test"]
    kept = load(tmp_path, copies="keep")
    assert set(keys(kept.x)) & set(keys(kept.x_test))


def test_copies_of_the_test_among_images_without_labels_are_left_out(tmp_path):
    for label, number in np.ndindex(2, 20):
        save(tmp_path / "all" / f"{label}-{number}.png", image(label, number))
    for number in range(3):
        save(tmp_path / "all" / f"new-{number}.png", image(7, number))
    folder(tmp_path / "own")
    for data in (
        load(tmp_path / "own", unlabelled=str(tmp_path / "all")),
        inputs.with_unlabelled(load(tmp_path / "own"), str(tmp_path / "all")),
    ):
        assert not set(keys(data.x)) & set(keys(data.x_test))
        assert int((data.y < 0).sum()) == 43 - 8
        assert said(data, "left out") == ["8 examples without labels that are in the test or validation set too"]
    assert len(load(tmp_path / "own", unlabelled=str(tmp_path / "all"), copies="keep").y) == 32 + 43


def test_copies_of_a_given_test_are_reported_or_dropped(tmp_path):
    folder(tmp_path / "train")
    for number in range(5):
        save(tmp_path / "test" / "a" / f"{number}.png", image(0, number))
        save(tmp_path / "test" / "b" / f"{number}.png", image(1, 50 + number))
    data = load(tmp_path)
    (warning,) = said(data, CAREFUL)
    assert warning.startswith("5 labelled training examples are copies of test or validation examples (")
    assert "copies=drop" in warning
    assert len(data.y) == 40
    dropped = load(tmp_path, copies="drop")
    assert len(dropped.y) == 35
    assert not set(keys(dropped.x)) & set(keys(dropped.x_test))
    assert not load(tmp_path, copies="keep").notes
    with pytest.raises(InputError, match="copies=maybe must be auto, drop or keep"):
        load(tmp_path, copies="maybe")


def test_without_copies_nothing_is_different(tmp_path):
    one, other = load(folder(tmp_path)), load(tmp_path, copies="keep")
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.y_test, other.y_test)
    assert one.groups is None
    assert not one.notes


def test_copies_in_arrays_of_images(tmp_path):
    x = np.stack([image(label, number) for label, number in np.ndindex(2, 20)])
    y = np.arange(40) // 20
    np.savez(tmp_path / "a.npz", x=np.concatenate([x, x]), y=np.concatenate([y, y]), x_unlabelled=x[:10])
    data = STORED["arrays"].load(tmp_path / "a.npz")
    assert not set(keys(data.x)) & set(keys(data.x_test))
    assert len(said(data, "copies")) == 1
    np.savez(tmp_path / "b.npz", x=x, y=y, x_test=x[15:25], y_test=y[15:25])
    assert "10 labelled training examples are copies" in said(STORED["arrays"].load(tmp_path / "b.npz"), CAREFUL)[0]
    assert len(STORED["arrays"].load(tmp_path / "b.npz", copies="drop").y) == 30


def test_equal_rows_of_numbers_are_said_and_stay(tmp_path):
    x = np.repeat(np.arange(8.0)[:, None] ** 2, 5, 0) * [1, 2]
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) // 20)
    (note,) = said(STORED["arrays"].load(tmp_path / "a.npz"), "copies")
    assert note.endswith("of 8 test examples are also in the training pool")


def test_too_many_bytes_are_not_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(labelled_files, "READ", 100)
    assert said(load(folder(tmp_path, ("{}.png", "{}-2.png"))), "copies") == [
        "nobody has looked for any among so many files"
    ]


def test_where_all_are_copies_something_is_still_held_out(tmp_path):
    for label in "ab":
        for number in range(5):
            save(tmp_path / label / f"{number}.png", np.full((6, 7), 9, np.uint8))
    data = load(tmp_path)
    assert data.y_test.tolist() == [0, 1]
    assert "copies of training examples" in said(data, CAREFUL)[0]


# ---------------------------------------------------------------- groups


def test_groups_by_a_pattern(tmp_path):
    for patient in range(10):
        for number in range(4):
            save(tmp_path / "ab"[patient % 2] / f"p{patient}_{number}.png", image(patient, number))
    data = load(tmp_path, group=r"p\d+")
    owner = {image(patient, number).tobytes(): patient for patient, number in np.ndindex(10, 4)}
    train, test = ({owner[key] for key in keys(x)} for x in (data.x, data.x_test))
    assert not train & test
    assert len(data.y_test) == 8
    assert said(data, "groups") == ["10, each on one side of the test"]
    found = split(data.y, "ab", Wanted(validation=8, groups=data.groups), rng.key(1))
    train, apart = ({owner[key] for key in keys(data.x[index])} for index in (found.unlabelled, found.validation))
    assert not train & apart
    assert apart
    with pytest.raises(InputError, match=r"group=\( is no regular expression"):
        load(tmp_path, group="(")
    with pytest.raises(InputError, match=r"group=zzz finds nothing in .*a.p0_0.png and all other files"):
        load(tmp_path, group="zzz")


def test_groups_in_a_column(tmp_path):
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "a", "label"])
        writer.writerows(
            [f"p{row // 4}", row * row % 101, ["x", "y", ""][row // 4 % 2 if row % 4 else 2]] for row in range(80)
        )
    table = STORED["table"].load
    assert any("group=patient keeps each on one side" in text for text in said(table(tmp_path / "t.csv"), CAREFUL))
    data = table(tmp_path / "t.csv", group="patient")
    assert [column["name"] for column in data.form.details["columns"]] == ["a"]
    assert data.groups is not None
    assert len(data.groups.unique()) == 16
    assert data.y_test.bincount().tolist() == [6, 6]
    assert said(data, "left out") == ["4 rows without a label of groups in the test"]
    assert len(data.y) == 80 - 16


def test_groups_in_an_array(tmp_path):
    x, y, owner = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) // 5 % 2, np.arange(60) // 5
    np.savez(tmp_path / "a.npz", x=x, y=y, groups=owner)
    data = STORED["arrays"].load(tmp_path / "a.npz")
    assert data.groups is not None
    assert data.groups.bincount().unique().tolist() == [0, 5]
    assert len(data.y_test) == 10
    np.savez(tmp_path / "a.npz", x=x, y=y, groups=owner[:-1])
    with pytest.raises(InputError, match=r"groups of shape \(59,\): give one for each of 60 in x"):
        STORED["arrays"].load(tmp_path / "a.npz")


def test_a_validation_group_is_not_learnt_from():
    """Its members of unknown class neither."""
    y = torch.tensor([0, 0, -1, 1, 1, -1] * 10)
    owner = torch.arange(60) // 3
    found = split(y, "ab", Wanted(validation=8, groups=owner), rng.key(0))
    assert not torch.isin(owner[found.unlabelled], owner[found.validation]).any()
    assert (y[found.validation] >= 0).all()
    assert y[found.validation].bincount().tolist() == [4, 4]


def test_shares_are_met_about_as_well_as_groups_allow():
    generator = torch.Generator().manual_seed(0)
    owner = torch.randint(40, (400,), generator=generator)
    y = torch.randint(3, (400,), generator=generator)
    pool, test = held_out.hold_out(y, 0.25, rng.key(0), owner)
    assert not torch.isin(owner[pool], owner[test]).any()
    assert sorted(pool.tolist() + test.tolist()) == list(range(400))
    assert ((y[test].bincount() - y.bincount() * 0.25).abs() <= 12).all()


def test_the_last_group_of_a_class_stays():
    y = torch.tensor([0, 0, 0, 0, 1, 1])
    owner = torch.tensor([0, 0, 1, 1, 2, 2])
    _, test = held_out.hold_out(y, 0.5, rng.key(0), owner)
    assert y[test].tolist() == [0, 0]
    with pytest.raises(InputError, match="no class has two groups"):
        held_out.hold_out(y, 0.5, rng.key(0), torch.tensor([0, 0, 0, 0, 1, 1]))


def test_company_of_company_is_company():
    one, other = torch.tensor([0, 0, 1, 2, 3]), torch.tensor([0, 1, 1, 2, 3])
    found = groups.joined(one, other)
    assert found is not None
    assert found.tolist() == [0, 0, 0, 3, 4]
    assert groups.joined(torch.arange(3), None) is None
    assert groups.joined(None) is None


def test_images_that_are_not_in_memory_are_compared_by_their_files(tmp_path, monkeypatch):
    place = folder(tmp_path / "own")
    for number, file in enumerate(sorted(place.rglob("*.png"))):
        (tmp_path / "more").mkdir(exist_ok=True)
        (tmp_path / "more" / f"copy{number:02d}.png").write_bytes(file.read_bytes())
    save(tmp_path / "more" / "fresh.png", image(7, 7))
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    data = load(place, unlabelled=str(tmp_path / "more"))
    assert not isinstance(data.x, torch.Tensor)
    test = keys(data.x_test[torch.arange(len(data.x_test))])
    assert len(test) == 8
    assert not set(test) & set(keys(data.x[torch.arange(len(data.x))]))
    assert len(data.x) == 40 - 8 + 40 - 8 + 1
    assert said(data, "left out") == ["8 examples without labels that are in the test or validation set too"]


def test_what_tells_copies_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(labelled_files, "LEAST", 0)
    place = folder(tmp_path / "own", ("{}.png", "{} copy.png"), 6)
    before = load(place)
    monkeypatch.setattr(labelled_files, "_digest", lambda file: pytest.fail(f"{file} was read again"))
    after = load(place)
    assert (
        said(after, "copies")
        == said(before, "copies")
        == ["12 examples are copies of others, all on one side of the test"]
    )
    assert torch.equal(after.y_test, before.y_test)
