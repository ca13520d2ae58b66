"""Labels that come later: for whom they are, and what is refused."""

import os

import pytest
import torch
from PIL import Image

from metapl.data import inputs, more_labels
from metapl.data.sources import find
from metapl.registry.errors import InputError


@pytest.fixture
def data(tmp_path):
    """Twenty photographs, of which the first twelve have a label."""
    for number in range(20):
        folder = tmp_path / "photos" / "in"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 9, 9)).save(folder / f"{number}.png")
    lines = [f"{number}.png,{'cat' if number % 3 else 'dog'}" for number in range(12)]
    (tmp_path / "photos" / "labels.csv").write_text("\n".join(["file,label", *lines]) + "\n")
    return find.load(str(tmp_path / "photos"))


def write(path, *rows):
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def labels_of(data):
    return {name: int(label) for name, label in zip(data.names, data.y.tolist(), strict=True)}


def test_names_are_paths_below_the_folder(data):
    assert len(data.names) == len(data.y)
    assert {"in/13.png", "in/14.png"} <= set(data.names)


def test_labels_go_to_those_that_they_name(data, tmp_path):
    text = write(
        tmp_path / "more.csv", "name,label,prediction", "in/13.png,cat,dog", "in/14.png,dog,dog", "in/15.png,,cat"
    )
    before, after = labels_of(data), labels_of(found := more_labels.apply(data, text))
    cat, dog = data.form.classes.index("cat"), data.form.classes.index("dog")
    assert after == before | {"in/13.png": cat, "in/14.png": dog}
    assert sorted(found.names[place] for place in found.later.tolist()) == ["in/13.png", "in/14.png"]
    assert any("2 more from more.csv" in note.text for note in found.notes)


def test_labels_that_are_known_are_no_more_labels(data, tmp_path):
    known = {name: data.form.classes[label] for name, label in labels_of(data).items() if label >= 0}
    rows = [f"{name},{label}" for name, label in known.items()]
    found = more_labels.apply(data, write(tmp_path / "more.csv", "name,label", *rows))
    assert [note.text for note in found.notes[-2:]] == [
        "0 more from more.csv",
        "more.csv has no label that was not known: fill in its column label",
    ]
    name, label = next(iter(known.items()))
    other = "cat" if label == "dog" else "dog"
    found = more_labels.apply(
        data, write(tmp_path / "more.csv", "name,label", *rows[1:], f"{name},{other}", "in/13.png,cat")
    )
    assert found.notes[-1].text == "1 more from more.csv, and 1 corrected"


def test_the_last_part_of_a_path_is_enough_where_only_one_has_it(data, tmp_path):
    text = write(tmp_path / "more.csv", "filename;class", "/elsewhere/13.png;cat", "13.png;dog")
    found = more_labels.apply(data, text)
    assert labels_of(found)["in/13.png"] == data.form.classes.index("dog")


def test_pseudo_labels_never_take_the_place_of_labels(data, tmp_path):
    text = write(tmp_path / "p.csv", "name,prediction,confidence", *(f"in/{n}.png,dog,0.99" for n in range(20)))
    found = more_labels.apply(data, text)
    known = data.y >= 0
    assert found.y[known].equal(data.y[known])
    assert set(found.later.tolist()) == set((~known).nonzero()[:, 0].tolist())
    sure = write(tmp_path / "sure.csv", "name,label", "in/13.png,cat")
    both = labels_of(more_labels.apply(data, os.pathsep.join([sure, text])))
    assert both["in/13.png"] == data.form.classes.index("cat")


def test_a_last_part_that_two_have_is_nobodys(data, tmp_path):
    twice = data._replace(names=tuple(name.replace("in/13", "a/12") for name in data.names))
    text = write(tmp_path / "more.csv", "name,label", "12.png,cat", "in/14.png,cat")
    found = more_labels.apply(twice, text)
    assert [found.names[place] for place in found.later.tolist()] == ["in/14.png"]


def test_a_label_that_is_there_is_corrected_and_that_is_said(data, tmp_path):
    known = next(name for name, label in labels_of(data).items() if label == data.form.classes.index("cat"))
    found = more_labels.apply(data, write(tmp_path / "more.csv", "name,label", f"{known},dog"))
    assert labels_of(found)[known] == data.form.classes.index("dog")
    assert any("1 corrected" in note.text for note in found.notes)


def test_of_several_files_the_last_one_counts(data, tmp_path):
    one = write(tmp_path / "one.csv", "name,label", "in/13.png,cat", "in/15.png,cat")
    other = write(tmp_path / "other.csv", "name,label", "in/13.png,dog")
    found = labels_of(more_labels.apply(data, os.pathsep.join([one, other])))
    assert [data.form.classes[found[name]] for name in ("in/13.png", "in/15.png")] == ["dog", "cat"]


def test_names_that_are_not_there_are_counted(data, tmp_path):
    text = write(tmp_path / "more.csv", "name,label", "in/13.png,cat", "in/99.png,cat")
    assert any("1 labels of other names: in/99.png" in note.text for note in more_labels.apply(data, text).notes)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["name,label", "in/99.png,cat"], "none of its 1 names"),
        (["name,label", "in/13.png,"], "none of its 0 names"),
        (["name,label", "in/13.png,catt"], "did you mean .cat"),
        (["name", "in/13.png"], "class in"),
    ],
)
def test_what_is_no_label_of_an_example_is_refused(data, tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        more_labels.apply(data, write(tmp_path / "more.csv", *rows))


def test_rows_of_a_table_are_named_by_their_number(tmp_path):
    lines = [
        f"{number * 37 % 100},{number * 11 % 17},{'xy'[number % 2] if number < 30 else ''}" for number in range(40)
    ]
    place = write(tmp_path / "t.csv", "a,b,label", *lines)
    data = find.load(place)
    for name, row in zip(data.names, data.x, strict=True):
        number = int(name.removeprefix("row ")) - 1
        column = data.form.details["columns"][0]
        assert float(row[0]) * column["std"] + column["mean"] == pytest.approx(number * 37 % 100, abs=1e-4)
    found = more_labels.apply(data, write(tmp_path / "more.csv", "name,label", "row 35,y"))
    assert labels_of(found)["row 35"] == 1


def test_examples_without_names_go_by_their_number(tmp_path):
    data = find.load("digits")
    assert data.names == ()
    found = more_labels.apply(data, write(tmp_path / "more.csv", "name,label", f"example 7,{data.y[8]}"))
    assert found.later.tolist() == [7]


def test_examples_of_another_folder_have_names_too(data, tmp_path):
    (tmp_path / "more").mkdir()
    Image.new("RGB", (8, 8), (200, 9, 9)).save(tmp_path / "more" / "new.png")
    grown = inputs.with_unlabelled(data, str(tmp_path / "more"))
    assert len(grown.names) == len(grown.y)
    assert grown.names[-1] == str(tmp_path / "more" / "new.png")
    found = more_labels.apply(grown, write(tmp_path / "more.csv", "name,label", "new.png,cat"))
    assert torch.equal(found.later, torch.tensor([len(grown.y) - 1]))
