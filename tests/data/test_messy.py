"""Data as people bring it: what each kind is taken for, or the one line that refuses it."""

from pathlib import Path

import numpy as np
import pytest
from pictures import random_levels, save

from metapl.data.formats import names
from metapl.data.notes import CAREFUL
from metapl.data.sources import find, parts
from metapl.registry.errors import InputError


def rows(count=60, labels=("a", "b")):
    return [[index * 7 % 50 / 10, index * 3 % 11, labels[index % len(labels)]] for index in range(count)]


def table(place, cells, first="u,v,label", name="t.csv", before=""):
    lines = [first, *(",".join(map(str, row)) for row in cells)]
    (place / name).write_text(before + "\n".join(lines))
    return find.load(str(place / name))


def careful(data):
    return [note.text for note in data.notes if note.about == CAREFUL]


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("word", ["n/d", "(blank)", "NaT", "???", "#REF!", "0_unlabeled", "00 unlabelled"])
def test_more_words_for_no_label(tmp_path, word):
    data = table(tmp_path, rows(labels=("a", "b", word)))
    assert data.form.classes == ("a", "b")
    assert int((data.y < 0).sum()) == 20


@pytest.mark.parametrize("word", ["TBD", "todo", "to be labelled", "pending", "unsure", "Skip"])
def test_more_words_that_are_asked_about(tmp_path, word):
    with pytest.raises(InputError, match=f"'{word}' stands there 20 times and may be a class or mean"):
        table(tmp_path, rows(labels=("a", "b", word)))


@pytest.mark.parametrize(
    ("labels", "asked"),
    [
        ((0, 1, 2, 255), "255"),
        ((1, 2, 3, 99), "99"),
        ((0, 1, -9), "-9"),
        ((0, 1, 2, 3), ""),
        ((10, 20, 99), ""),
        ((5, 6, 7, 255), ""),
        ((0, 255), ""),
    ],
)
def test_a_number_that_stands_out_among_labels_is_asked_about(tmp_path, labels, asked):
    np.savez(tmp_path / "t.npz", x=np.random.default_rng(0).normal(size=(60, 3)), y=np.array([*labels] * 60)[:60])
    load = [lambda: table(tmp_path, rows(labels=labels))]
    load += [lambda: find.load(str(tmp_path / "t.npz"))] if "-9" not in map(str, labels) else []
    for one in load:
        if asked:
            with pytest.raises(InputError, match=f"the label '{asked}' stands there .* marker={asked} if"):
                one()
        else:
            assert one().form.classes == tuple(map(str, labels))


def test_classes_that_are_spelt_in_two_ways_are_warned_of(tmp_path):
    (warning,) = careful(table(tmp_path, rows(labels=("Cat", "cat", "dog"))))
    assert warning.startswith("the classes 'Cat' and 'cat' may be meant to be one")
    assert careful(table(tmp_path, rows(labels=("cat", "dog")))) == []


def test_a_column_that_says_the_label_is_warned_of(tmp_path):
    cells = [[one, "yn"[index % 2], label] for index, (one, _, label) in enumerate(rows())]
    (warning,) = careful(table(tmp_path, cells, "u,code,label"))
    assert warning == "column 'code' says 'label' of every row: ignore=code if it is made of it"
    cells[7][1] = "y" if cells[7][1] == "n" else "n"
    assert careful(table(tmp_path, cells, "u,code,label")) == []


# ---------------------------------------------------------------- cells


@pytest.mark.parametrize("before", ["sep=,\n", "SEP=,\r\n", '"sep=,"\n'])
def test_a_line_for_excel_is_no_header(tmp_path, before):
    data = table(tmp_path, rows(), before=before)
    assert (data.form.classes, data.form.shape) == (("a", "b"), (2,))
    with pytest.raises(InputError, match=r"line 5: column 'u' has numbers|'x' in line 5"):
        table(tmp_path, [["x", 3, "b"] if index == 2 else row for index, row in enumerate(rows())], before=before)


def test_commas_between_thousands_are_not_taken_for_decimals(tmp_path):
    cells = [[f'"{1000 + 37 * index:,}"', *row[1:]] for index, row in enumerate(rows())]
    with pytest.raises(InputError, match=r"'1,000' in line 2, whose comma may stand between thousands"):
        table(tmp_path, cells)


@pytest.mark.parametrize("write", ["{} kg", "${}", "{}€", "2024-01-{:02d}"])
def test_numbers_with_units_and_dates_are_warned_of(tmp_path, write):
    cells = [[write.format(1 + index % 28), *row[1:]] for index, row in enumerate(rows())]
    (warning,) = careful(table(tmp_path, cells))
    assert "28 categories" in warning


def test_names_with_numbers_are_plain_categories(tmp_path):
    cells = [[f"room {index % 28}", *row[1:]] for index, row in enumerate(rows())]
    assert careful(table(tmp_path, cells)) == []


# ---------------------------------------------------------------- folders and files of labels


def photos(place, classes=("cat", "dog"), start=0):
    for label, name in enumerate(classes):
        for number in range(start, start + 6):
            save(place / name / f"{number:02d}.png", random_levels(6, 7, seed=100 * label + number))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["seg_test", "seg_train"], ["test", "train"]),
        (["x_train", "x_val", "x_test"], ["train", "validation", "test"]),
        (["train_256", "test_256"], ["train", "test"]),
        (["train", "seg_test"], ["train", None]),
        (["seg_train", "cat_test"], [None, None]),
        (["steam_train", "steam_ship"], [None, None]),
        (["seg_train"], [None]),
    ],
)
def test_parts_with_a_word_in_common(names, expected):
    assert parts.names_of(names) == expected


def test_parts_with_a_word_in_common_are_no_classes(tmp_path):
    photos(tmp_path / "seg_train")
    photos(tmp_path / "seg_test", start=50)
    data = find.load(str(tmp_path))
    assert data.form.classes == ("cat", "dog")
    assert (len(data.y), len(data.y_test)) == (12, 12)


def test_parts_in_another_language_are_asked_about(tmp_path):
    photos(tmp_path / "entrainement")
    photos(tmp_path / "test", start=50)
    with pytest.raises(InputError, match="entrainement, test hold the same folders, cat, dog, and may be parts"):
        find.load(str(tmp_path))


@pytest.mark.parametrize("junk", ["@eaDir", "__MACOSX", "$RECYCLE.BIN"])
def test_folders_of_systems_are_no_classes(tmp_path, junk):
    photos(tmp_path)
    photos(tmp_path / "cat", [junk])
    photos(tmp_path, [junk])
    data = find.load(str(tmp_path))
    assert data.form.classes == ("cat", "dog")
    assert len(data.y) + len(data.y_test) == 12


@pytest.mark.parametrize(
    "write",
    [
        "img_{:02d}.PNG",
        "pics\\IMG_{:02d}.png",
        "./pics/IMG_{:02d}.png",
        "photos/pics/IMG_{:02d}.png",
        "C:\\Users\\me\\IMG_{:02d}.png",
    ],
)
def test_names_of_images_in_other_spellings(tmp_path, write):
    for number in range(20):
        save(tmp_path / "pics" / f"IMG_{number:02d}.png", random_levels(6, 7, seed=number))
    lines = ["filename,label", *(f"{write.format(number)},{'ab'[number % 2]}" for number in range(12))]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = find.load(str(tmp_path))
    assert int((data.y >= 0).sum()) + len(data.y_test) == 12
    for place, name in enumerate(data.names):
        number = int(name[-6:-4])
        assert data.y[place] == (number % 2 if number < 12 else -1)
    assert any("are taken without" in note.text for note in data.notes) == ("photos" in write or "Users" in write)


def test_letters_tell_files_apart_where_they_have_to(tmp_path):
    for number, name in enumerate(["a.png", "A.png", "b.PNG", "c.png", "d.png", "e.png"] * 3):
        save(tmp_path / f"{number // 6}{name}", random_levels(6, 7, seed=number))
    lines = ["filename,label"]
    for number in range(3):
        lines += [f"{number}a.png,x", f"{number}A.png,y", f"{number}B.png,x", f"{number}C.png,y"]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = find.load(str(tmp_path))
    found = {
        name: data.form.classes[label] for name, label in zip(data.names, data.y.tolist(), strict=True) if label >= 0
    }
    assert len(found) + len(data.y_test) == 12
    assert all(label == ("y" if name[1:] in ("A.png", "c.png") else "x") for name, label in found.items())


def test_a_column_for_each_class_is_one_label(tmp_path):
    for number in range(20):
        save(tmp_path / f"IMG_{number:02d}.png", random_levels(6, 7, seed=number))
    ones = ["1,0,0", "0,1,0", "0,0,1", "0,0,0"]
    lines = ["image,cat,dog,ship", *(f"IMG_{number:02d},{ones[number % 4]}" for number in range(16))]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = find.load(str(tmp_path))
    assert data.form.classes == ("cat", "dog", "ship")
    assert int((data.y >= 0).sum()) + len(data.y_test) == 12
    assert any("a column for each class" in note.text for note in data.notes)
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "IMG_16,1,1,0"]))
    assert find.load(str(tmp_path)).form.classes == ("0", "1")


@pytest.mark.parametrize(("x", "y"), [("features", "labels"), ("train_x", "train_y"), ("Xtrain", "Ytrain")])
def test_more_names_of_arrays(tmp_path, x, y):
    examples = np.random.default_rng(0).normal(size=(40, 3))
    np.savez(tmp_path / "t.npz", **{x: examples, y: np.arange(40) % 2})
    assert len(find.load(str(tmp_path / "t.npz")).x) == 32


def test_arrays_of_unknown_names_are_named(tmp_path):
    np.savez(tmp_path / "t.npz", np.zeros((40, 3)), np.arange(40) % 2)
    with pytest.raises(InputError, match="no array x among arr_0, arr_1: call it x or X"):
        find.load(str(tmp_path / "t.npz"))


def test_a_name_that_two_files_have_is_nobodys():
    found = names.Names([Path("p/a/1.png"), Path("p/b/1.png"), Path("p/b/2.png")], Path("p"))
    assert [found.find(one) for one in ("1.png", "1", "c/1.png")] == [None] * 3
    assert [found.find(one) for one in ("a/1.png", "B\\1", "2")] == [
        Path("p/a/1.png"),
        Path("p/b/1.png"),
        Path("p/b/2.png"),
    ]
    assert found.find("x/y/1.png", ("x", "y")) is None
    assert found.find("x/y/2.png", ("x", "y")) == Path("p/b/2.png")


def test_images_without_labels_are_told_how_to_have_some(tmp_path):
    save(tmp_path / "1.JPG", random_levels(6, 7))
    with pytest.raises(InputError, match=r"images without labels: write labels\.csv beside them, with the columns"):
        find.load(str(tmp_path))
