"""The page of `metapl data check`: what it says is what is in the data."""

import base64
import io

import numpy as np
import pytest
import torch
from data_command import assert_refused, invoke
from markup import cells, parse
from pictures import random_levels, save
from PIL import Image

from metapl.data.sources import find
from metapl.reporting import dataset


@pytest.fixture
def photos(tmp_path):
    for label, name in enumerate(("cat", "dog <i>", "unlabelled")):
        for number in range(10 - 2 * label):
            save(tmp_path / "in" / name / f"{number:02d}.png", random_levels(8, 8, 3, seed=100 * label + number))
    (tmp_path / "in" / "cat" / "notes.txt").write_text("")
    return tmp_path / "in"


@pytest.fixture
def written(tmp_path):
    rows = [
        f"{-999 if row % 20 == 3 else row * 7 % 50},{row * 3 % 11},p{row // 6},{['ok', 'bad', '-'][row % 3]}"
        for row in range(60)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["temp,load,patient,state", *rows]))
    return tmp_path / "t.csv"


def test_images_are_shown_with_their_labels_and_names(photos, tmp_path):
    out = tmp_path / "pages" / "check.html"
    said = invoke("check", photos, "--out", out)
    assert f"page       {out}" in said
    page = parse(out.read_text("utf-8"))
    data = find.load(str(photos))
    assert cells(page, "labelled examples by class")[1:] == [["cat", "8", "2", "57.1"], ["dog <i>", "6", "2", "42.9"]]
    shown = page.one("ul", class_="pictures")
    labels = [item.one("strong").text for item in shown.all("li")]
    assert [labels.count(name) for name in ("cat", "dog <i>", "no label")] == [6, 6, 6]
    names = [list(item.all("div"))[-1].text for item in shown.all("li")]
    for name, label, image in zip(names, labels, shown.all("img"), strict=True):
        place = data.names.index(name)
        assert label == ("no label" if data.y[place] < 0 else data.form.classes[data.y[place]])
        content = base64.b64decode(image.attributes["src"].partition(",")[2])
        pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1)
        assert torch.equal(pixels, data.x[place])
    words = {term.text: meaning.text for term, meaning in zip(page.all("dt"), page.all("dd"), strict=False)}
    assert "1 .txt" in page.one("dl", class_="words").text
    assert words


def test_a_table_has_its_columns_and_its_warnings(written):
    data = find.load(str(written))
    page = parse(dataset.page("t.csv", data, "t.csv, read as table"))
    found = dict(cells(page, "columns of the table")[1:])
    assert list(found) == ["temp", "load", "patient", "state"]
    assert found["load"] == "number, 0 to 10"
    assert found["patient"].startswith("category of 10: ")
    assert found["state"] == "label, 2 classes"
    warnings = [one.text for one in page.all("p", class_="warning")]
    assert any("missing=-999" in text for text in warnings)
    assert any("group=patient" in text for text in warnings)
    assert not list(page.all("img"))


def test_the_validation_set_has_a_column_of_its_own(tmp_path):
    y, part = np.arange(60) % 2, np.array(["train"] * 40 + ["val"] * 8 + ["test"] * 12)
    lines = ["a,split,label", *(f"{index * 7 % 50},{part[index]},{'xy'[y[index]]}" for index in range(60))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    page = parse(dataset.page("t.csv", find.load(str(tmp_path / "t.csv"))))
    rows = cells(page, "labelled examples by class")
    assert rows[0] == ["class", "training", "validation", "test", "%"]
    assert rows[1:] == [["x", "20", "4", "6", "50.0"], ["y", "20", "4", "6", "50.0"]]


def test_many_classes_are_folded_and_few_images_of_each_are_shown(tmp_path):
    y = np.arange(210) % 70
    np.savez(tmp_path / "t.npz", x=random_levels(210, 6, 6), y=y, x_test=random_levels(70, 6, 6, seed=1), y_test=y[:70])
    page = parse(dataset.page("t.npz", find.load(str(tmp_path / "t.npz"))))
    assert page.one("details").one("summary").text == "All 70 classes"
    assert len(list(page.one("ul", class_="pictures").all("li"))) == 60


def test_data_that_comes_along_has_a_page():
    page = parse(dataset.page("moons", find.load("moons")))
    assert "nothing is doubtful" in page.text


def test_the_file_must_be_a_page(tmp_path):
    assert_refused("check", "moons", "--out", tmp_path / "t.txt", words=["--out", ".html"])
