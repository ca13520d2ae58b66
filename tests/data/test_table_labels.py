"""The column of the labels, other columns, and what is a class."""

import numpy as np
import pytest
import torch
from asserts import assert_refused
from own_tables import small, write
from sklearn.datasets import load_wine

from metapl.data.sources import STORED
from metapl.registry import notation

table, is_table = STORED["table"].load, STORED["table"].recognise


# ---------------------------------------------------------------- columns


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("size,colour,weight,y", "y"),
        ("size,colour,weight,kind", "kind"),
        ("size,Label,weight,kind", "Label"),
        ("size,TARGET,weight,kind", "TARGET"),
        ("size,class,weight,kind", "class"),
    ],
)
def test_the_label_column_is_found(tmp_path, header, found):
    path = small(tmp_path, ["red", "blue"] * 6, header)
    data = table(path)
    assert data.form.details["label"] == found
    assert found not in [column["name"] for column in data.form.details["columns"]]
    assert data.form.classes == ("blue", "red")


@pytest.mark.parametrize(
    ("kinds", "label"),
    [
        ("abc", "kind"),  # numbers but for one column
        ("ab", "kind"),
        ("aabc0123456789", "size"),  # hardly any comes twice, as in a column of names
        ("a", "size"),
        ("0123", "size"),  # no texts at all
    ],
)
def test_the_only_column_of_texts_is_the_label(tmp_path, kinds, label):
    """UCI's letters begin with the class, and end with a number from 0 to 15."""
    rows = [[kinds[index % len(kinds)], index % 7, index % 3] for index in range(30)]
    path = write(tmp_path / "t.csv", ["kind", "weight", "size"], rows)
    assert table(path).form.details["label"] == label


def test_of_several_columns_of_texts_none_is_preferred(tmp_path):
    rows = [["ab"[index % 2], "uv"[index % 2], index % 3] for index in range(30)]
    path = write(tmp_path / "t.csv", ["kind", "colour", "size"], rows)
    assert table(path).form.details["label"] == "size"


def test_a_label_column_that_is_given(tmp_path):
    path = small(tmp_path, ["a", "b"] * 6)
    data = table(path, label="colour")
    assert data.form.classes == ("blue", "red")
    assert [column["name"] for column in data.form.details["columns"]] == ["size", "weight", "y"]


def test_ignored_columns(tmp_path):
    """One name of scikit-learn's wine has a slash."""
    raw = load_wine()
    names, rows = [*raw.feature_names, "kind"], np.column_stack([raw.data, raw.target])
    path = write(tmp_path / "wine.csv", names, rows)
    slash = next(name for name in names if "/" in name)
    data = table(path, ignore=f"hue/{slash}/alcohol")
    left = [column["name"] for column in data.form.details["columns"]]
    assert left == [name for name in raw.feature_names if name not in ("hue", "alcohol", slash)]


def test_the_longest_name_is_ignored(tmp_path):
    path = small(tmp_path, ["a", "b"] * 6, "a,b,a/b,y")
    kept = [column["name"] for column in table(path, ignore="a/b").form.details["columns"]]
    assert kept == ["a", "b"]


@pytest.mark.parametrize(("ignore", "label"), [("class", "y"), ("y", "class"), ("y/class", "weight")])
def test_an_ignored_column_is_not_taken_for_the_labels(tmp_path, ignore, label):
    rows = [[index**2, "ab"[index % 2], index % 3, "uv"[index % 2]] for index in range(12)]
    path = write(tmp_path / "t.csv", ["size", "class", "weight", "y"], rows)
    assert table(path, ignore=ignore).form.details["label"] == label


def test_options_are_given_as_text(cancer):
    data = notation.build(
        "table:label=diagnosis,ignore=mean area/area error,test=0.4", {"table": table}, "data", cancer
    )
    assert data.form.shape == (28,)


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        (
            "size,label,weight,y",
            {},
            r"t.csv: the labels may be in 'label' or 'y': give label=label, and ignore=y unless",
        ),
        ("size,colour,weight,y", {"label": "z"}, r"unknown label column of .*t.csv 'z': choose from colour, size, w"),
        ("size,colour,weight,y", {"label": "weigth"}, r"'weigth': did you mean 'weight'\?"),
        (
            "size,colour,weight,y",
            {"ignore": "colour/sise"},
            r"unknown ignored column of .* 'sise': did you mean 'size'",
        ),
        ("size,colour,weight,y", {"ignore": "colour/"}, r"unknown ignored column of .* '': choose"),
        ("size,colour,weight,y", {"ignore": "y", "label": "y"}, r"label=y is also in ignore: take it out"),
        ("size,colour,weight,y", {"ignore": "size/colour/weight"}, r"no column that varies is left beside 'y'"),
        ("size,colour,weight,y", {"ignore": "size/colour/weight/y"}, r"ignore leaves no column: ignore fewer"),
    ],
)
def test_columns_that_are_not_clear_are_refused(tmp_path, header, options, message):
    assert_refused(message, table, small(tmp_path, ["a", "b"] * 6, header), **options)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "B"], ("B", "a", "b")),
        (["10", "9", "-2"], ("-2", "9", "10")),
        (["1.0", "0", "1", "0.0"], ("0", "1")),
        (["0.5", "2", ".25"], ("0.25", "0.5", "2")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["9007199254740993", "9007199254740992"], ("9007199254740992", "9007199254740993")),
    ],
)
def test_classes_are_sorted_texts(tmp_path, labels, classes):
    data = table(small(tmp_path, [*labels, "", "NA", "?"] * 4))
    assert data.form.classes == classes
    per_class = torch.bincount(torch.cat([data.y, data.y_test]) + 1).tolist()
    assert per_class == [12] + [4 * len(labels) // len(classes)] * len(classes)


def test_every_row_keeps_its_label(tmp_path):
    labels = ["", "b", "a", "c", "", "a"] * 5
    data = table(small(tmp_path, labels))
    column = data.form.details["columns"][-1]
    x, y = torch.cat([data.x, data.x_test]).double(), torch.cat([data.y, data.y_test])
    rows = (-(x[:, -1] * column["std"] + column["mean"])).round().long().tolist()
    assert sorted(rows) == list(range(30))
    assert [" abc"[label + 1].strip() for label in y.tolist()] == [labels[row] for row in rows]


def test_numbers_as_labels_agree_with_those_of_the_test_file(tmp_path):
    """pandas writes 1.0 where a label is missing, and 1 where none is."""
    small(tmp_path, ["1", "0", "1"], name="test.csv")
    data = table(small(tmp_path, ["0.0", "1.0", "", ""] * 4), test_file="test.csv")
    assert data.y_test.tolist() == [1, 0, 1]
    assert data.y.tolist() == [0, 1, -1, -1] * 4


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([""] * 20, r"t.csv: column 'y' has no label at all: give rows of two classes"),
        (["a", ""] * 10, r"t.csv: column 'y' has one class only, 'a': give rows of two classes"),
        (["1", "1.0"] * 10, r"column 'y' has one class only, '1'"),
        (["a", "b", "", ""], r"no class has two"),
        ([str(value) for value in range(101)] * 3, r"column 'y' has 101 different numbers, which look like a quantity"),
        (
            [f"{value / 2}" for value in range(11)] * 3,
            r"column 'y' has 11 different numbers.*label=NAME, or write rang",
        ),
        ([f"text {value}" for value in range(101)], r"column 'y' has 101 different texts in 101 labelled rows"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path, labels, message):
    assert_refused(message, table, small(tmp_path, labels))


@pytest.mark.parametrize(
    "labels",
    [
        [str(value) for value in range(100)] * 2,
        [f"{value / 2}" for value in range(10)] * 3,
        [f"text {value}" for value in range(101)] * 2,
    ],
)
def test_many_classes_are_classes(tmp_path, labels):
    assert table(small(tmp_path, labels)).classes == len(set(labels))
