"""Which labels mean that there is no label: the same answer for tables, arrays and folders."""

import csv

import numpy as np
import pytest
import torch
from pictures import random_levels, save

from metapl.data import marker
from metapl.data.sources import STORED
from metapl.registry.errors import InputError

SURE = ["unlabeled", "Unlabelled", "UNLABELLED", "unlabeled_data", "un-labelled", "not labelled", "no label", "<NA>"]
SURE += ["#N/A", "-", "--", "?", "unsup", "nan"]


def table(path, labels, **options):
    with (path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "label"])
        writer.writerows([index * 37 % 101 / 7, index * 11 % 13 / 3, label] for index, label in enumerate(labels))
    return STORED["table"].load(path / "t.csv", **options)


def arrays(path, labels, **options):
    x = np.random.default_rng(0).normal(size=(len(labels), 3))
    np.savez(path / "a.npz", x=x, y=np.array(labels))
    return STORED["arrays"].load(path / "a.npz", **options)


def folder(path, labels, **options):
    for index, label in enumerate(labels):
        save(path / "f" / label / f"{index:03d}.png", random_levels(6, 7, seed=index))
    return STORED["folder"].load(path / "f", **options)


EVERY = pytest.mark.parametrize("load", [table, arrays, folder])


def text(labels):
    return [str(label) for label in labels]


def unknown(data):
    return int((torch.cat([data.y, data.y_test]) < 0).sum())


@EVERY
@pytest.mark.parametrize("word", SURE)
def test_words_for_no_label_are_no_class(tmp_path, load, word):
    if load is folder and "/" in word:
        pytest.skip("no folder has such a name")
    data = load(tmp_path, ["x", "y", word, word] * 6)
    assert data.form.classes == ("x", "y")
    assert unknown(data) == 12
    assert (data.y_test >= 0).all()
    # An empty cell and its like never become a label.
    assert any(repr(word) in note.text and "12" in note.text for note in data.notes) or word in ("?", "nan")


@EVERY
@pytest.mark.parametrize("word", ["none", "None", "unknown", "Missing"])
def test_words_that_may_be_a_class_are_asked_about(tmp_path, load, word):
    labels = ["x", "y", word, word] * 6
    with pytest.raises(
        InputError, match=f"'{word}' .* may be a class or mean .*marker={word} if .*marker= with"
    ) as one:
        load(tmp_path, labels)
    assert len(str(one.value).splitlines()) == 1
    assert load(tmp_path, labels, marker="").form.classes == tuple(sorted(["x", "y", word]))
    marked = load(tmp_path, labels, marker=word)
    assert (marked.form.classes, unknown(marked)) == (("x", "y"), 12)


@EVERY
def test_one_of_two_classes_is_a_class(tmp_path, load):
    assert load(tmp_path, ["crack", "none"] * 6).form.classes == ("crack", "none")


@EVERY
def test_strands_are_plus_and_minus(tmp_path, load):
    assert load(tmp_path, ["+", "-", "0"] * 6).form.classes == ("+", "-", "0")


@pytest.mark.parametrize("load", [table, arrays])
@pytest.mark.parametrize(
    ("labels", "classes", "none"),
    [
        ([0, 1, 2, -1], ("0", "1", "2"), 6),
        ([3, 7, -1, -1], ("3", "7"), 12),
        ([0, 1, -1, -1, -1], ("0", "1"), 18),
        ([1, -1], ("-1", "1"), 0),
        ([0, -1], ("-1", "0"), 0),
    ],
)
def test_minus_one_is_a_mark_beside_other_numbers(tmp_path, load, labels, classes, none):
    data = load(tmp_path, labels * 6)
    assert (data.form.classes, unknown(data)) == (classes, none)
    assert any("'-1'" in note.text for note in data.notes)


@pytest.mark.parametrize("load", [table, arrays])
@pytest.mark.parametrize("labels", [[-1, 0, 1], [-1, 0, 0, 1], [-1, -1, 0, 1]])
def test_minus_one_beside_0_and_1_may_be_a_sentiment(tmp_path, load, labels):
    with pytest.raises(InputError, match=r"'-1' .* beside 0 and 1, may be a class or mean|beside 0 and 1, and may"):
        load(tmp_path, labels * 6)
    assert load(tmp_path, labels * 6, marker="").form.classes == ("-1", "0", "1")
    assert load(tmp_path, labels * 6, marker="-1").form.classes == ("0", "1")


def test_minus_one_beside_words_is_a_mark(tmp_path):
    assert table(tmp_path, ["x", "y", -1] * 6).form.classes == ("x", "y")
    assert arrays(tmp_path, ["x", "y", "-1"] * 6).form.classes == ("x", "y")
    assert folder(tmp_path, ["x", "y", "-1"] * 6).form.classes == ("x", "y")


@pytest.mark.parametrize("labels", [[-2, -1, 0, 1, 2], [-1, -3, 4]])
def test_beside_other_numbers_below_0_it_is_a_class(tmp_path, labels):
    names = tuple(text(sorted(labels)))
    assert table(tmp_path, labels * 6).form.classes == names
    assert arrays(tmp_path, labels * 6, marker="").form.classes == names
    with pytest.raises(InputError, match=r"label -[23] is none of .*or give marker=, with nothing after it if it is"):
        arrays(tmp_path, labels * 6)


def test_nan_beside_0_and_1_is_no_question(tmp_path):
    data = arrays(tmp_path, [0.0, 1.0, float("nan")] * 6)
    assert (data.form.classes, unknown(data)) == (("0", "1"), 6)


def test_beside_the_names_of_classes_it_is_a_mark(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(9, 3)), y=[-1, 0, 1] * 3, classes=["n", "p"])
    data = STORED["arrays"].load(tmp_path / "a.npz")
    assert (data.form.classes, unknown(data)) == (("n", "p"), 3)


@EVERY
def test_a_marker_that_is_not_there_is_refused(tmp_path, load):
    with pytest.raises(InputError, match=r"unknown marker of .* 'unknwon': choose .*x"):
        load(tmp_path, ["x", "y"] * 6, marker="unknwon")


@EVERY
def test_several_markers(tmp_path, load):
    data = load(tmp_path, ["x", "y", "later", "none", "later/x"] * 6, marker="later/none")
    assert data.form.classes == ("later/x", "x", "y") if load is not folder else ("x", "y")


def test_the_marker_of_the_test_file_is_left_out(tmp_path):
    table(tmp_path, ["x", "y", "unlabelled"] * 6)
    (tmp_path / "t.csv").rename(tmp_path / "test.csv")
    data = table(tmp_path, ["x", "y"] * 6, test_file="test.csv")
    assert data.y_test.tolist() == [0, 1] * 6


@pytest.mark.parametrize("name", ["label", "cat", "unlabelledness", "nano", "unknown_2", "+", "0", "neg"])
def test_other_words_are_classes(name):
    assert not marker.is_sure(name)
    assert marker.find({"a": 3, "b": 3, name: 9}, marker.AUTO, "here") == frozenset()
