"""Images with their labels in a file beside them: the forms of Kaggle, of ImageNet, and of a spreadsheet."""

import numpy as np
import pytest
import torch
from pictures import random_levels, save

from metapl.data.formats.decode import ENDINGS
from metapl.data.sources import STORED, find
from metapl.registry.errors import InputError

load, recognise = STORED["listed"][:2]
COUNT = 20


def write(place, folder="", count=COUNT, start=0):
    for number in range(start, start + count):
        save(place / folder / f"{number:02d}.png", random_levels(6, 7, seed=number))
    return place


def lines(place, rows, name="labels.csv"):
    (place / name).write_text("".join(f"{row}\n" for row in rows))
    return place


def label(number):
    return "ab"[number % 3 > 0]


def pairs(data):
    """Which image has which label, −1 for none."""
    x, y = torch.cat([data.x, data.x_test]), torch.cat([data.y, data.y_test])
    seeds = {random_levels(6, 7, seed=number).tobytes(): number for number in range(60)}
    return {seeds[image.numpy().tobytes()]: one for image, one in zip(x, y.tolist(), strict=True)}


def said(data, about):
    return [note.text for note in data.notes if note.about == about]


EXPECTED = {number: number % 3 > 0 for number in range(COUNT)}


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("labels.csv", ["filename,label", *(f"{n:02d}.png,{label(n)}" for n in range(COUNT))]),
        ("train.csv", ["id,breed", *(f"{n:02d},{label(n)}" for n in range(COUNT))]),
        ("any.tsv", ["class\tfile", *(f"{label(n)}\tpics/{n:02d}.png" for n in range(COUNT))]),
        ("val.txt", [f"{n:02d}.png {label(n)}" for n in range(COUNT)]),
        ("val.txt", [f"{n:02d}.png,{label(n)}" for n in range(COUNT)]),
        ("labels.csv", [f"{label(n)};{n:02d}.png" for n in range(COUNT)]),
    ],
)
@pytest.mark.parametrize("folder", ["", "pics"])
def test_forms_of_a_file_of_labels(tmp_path, name, rows, folder):
    if "pics/" in rows[1] and not folder:
        pytest.skip("there is no such folder")
    lines(write(tmp_path, folder), rows, name)
    assert find.recognise(tmp_path) == "listed"
    data = load(tmp_path)
    assert data.form.classes == ("a", "b")
    assert pairs(data) == EXPECTED
    assert data.y_test.bincount().tolist() == [1, 3]
    assert said(data, "labels")[0].startswith(f"from {name}: column ")


def test_images_without_a_row_have_no_label(tmp_path):
    lines(write(tmp_path), ["file,label", *(f"{n:02d}.png,{label(n)}" for n in range(8)), "08.png,", "77.png,a"])
    data = load(tmp_path)
    assert pairs(data) == {**EXPECTED, **dict.fromkeys(range(8, COUNT), -1)}
    assert said(data, "left out") == ["1 rows whose images are not there: 77.png"]
    assert said(data, "labels")[-1] == "11 images that labels.csv does not name have none"
    assert data.y.tolist() == sorted(data.y.tolist(), key=lambda one: one < 0)


def test_kaggle_has_a_folder_for_the_test_without_labels(tmp_path):
    write(write(tmp_path, "train"), "test", 5, start=40)
    lines(tmp_path, ["id,label", *(f"{n:02d},{label(n)}" for n in range(COUNT))], "train.csv")
    lines(tmp_path, ["id", "40", "41"], "sample_submission.csv")
    with pytest.raises(InputError, match=r"sample_submission.csv, train.csv in it: say which one with labels=FILE"):
        load(tmp_path)
    data = load(tmp_path, labels="train.csv")
    assert pairs(data) == EXPECTED
    assert said(data, "left out") == ["5 images of a test that train.csv does not name"]


def test_a_column_says_what_each_image_is_for(tmp_path):
    rows = [f"{n:02d}.png,{['train', 'test', 'valid'][n % 3]},{'ab'[n // 3 % 2]}" for n in range(COUNT)]
    data = load(lines(write(tmp_path), ["path,split,label", *rows]))
    assert (len(data.y), len(data.y_test), len(data.validation)) == (13, 7, 6)
    assert pairs(data) == {n: n // 3 % 2 for n in range(COUNT)}


def test_columns_that_are_given(tmp_path):
    rows = [f"{n:02d}.png,{label(n)},{'uv'[n % 2]},{(n + 1) % COUNT:02d}.png" for n in range(COUNT)]
    lines(write(tmp_path), ["one,label,kind,other", *rows])
    data = load(tmp_path, file="other", label="kind")
    assert data.form.classes == ("u", "v")
    assert pairs(data) == {(n + 1) % COUNT: n % 2 for n in range(COUNT)}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (["file,label", "x,a", "y,b"], {}, r"no column names the images of the folder, 'file' has 0 of 2: give file="),
        (["file,label", "01.png,a", "02.png,b", "01,a"], {}, r"line 4: '01' is in line 2 too: one label an image"),
        (["file,label", "01.png,a", "02.png,b"], {"file": "name"}, r"unknown file column of .* 'name'"),
        (
            ["file,label", "01.png,a", "02.png,b"],
            {"labels": "no.csv"},
            r"no.csv: no such file: name the file of labels",
        ),
        (["file,label", "01.png,a", "02.png,none", "03.png,b"], {}, r"the label 'none' stands there 1 times"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, rows, options, message):
    with pytest.raises(InputError, match=message) as raised:
        load(lines(write(tmp_path), rows), **options)
    assert len(str(raised.value).splitlines()) == 1


def test_folders_of_classes_with_a_table_beside_them_are_folders_of_classes(tmp_path):
    for name in ("cat", "dog"):
        write(tmp_path, name, 3)
    lines(tmp_path, ["a,b", "1,2"], "notes.csv")
    assert find.recognise(tmp_path) == "folder"
    assert not recognise(tmp_path / "notes.csv")
    assert not recognise(tmp_path / "cat")


def test_files_of_other_kinds_are_counted(tmp_path):
    """Not one is left out without a word, and none that Pillow reads is left out."""
    for name in ("cat", "dog"):
        write(tmp_path, name, 4)
        for ending in (".heic", "", ".jpg_large"):
            (tmp_path / name / f"x{ending}").write_bytes(b"")
        (tmp_path / name / ".hidden").write_bytes(b"")
    (text,) = said(STORED["folder"].load(tmp_path, copies="keep"), "left out")
    assert text.startswith("files that are no images by the endings of their names: ")
    counted = text.partition(": ")[2].partition(" (")[0]
    heic = set() if ".heic" in ENDINGS else {"2 .heic"}
    assert set(counted.split(", ")) == {"2 no ending", "2 .jpg_large"} | heic


@pytest.mark.parametrize("ending", ["jfif", "avif", "jp2"])
def test_more_formats(tmp_path, ending):
    from PIL import Image  # noqa: PLC0415

    for number in range(4):
        path = tmp_path / "ab"[number % 2] / f"{number}.{ending}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 40 * number, np.uint8)).save(path, "JPEG" if ending == "jfif" else None)
    assert len(STORED["folder"].load(tmp_path).y) == 2


def test_files_that_are_no_images_are_counted(tmp_path):
    place = lines(write(tmp_path), ["file,label", *(f"{n:02d}.png,{label(n)}" for n in range(COUNT))])
    for name in ("a.heic", "b.HEIC", "c.psd"):
        (place / name).write_bytes(b"x")
    data = find.load(str(place))
    (text,) = (text for text in said(data, "left out") if "endings" in text)
    heic = "" if ".heic" in ENDINGS else "2 .heic, "
    assert text.startswith(f"files that are no images by the endings of their names: {heic}1 .psd")
    assert ("pip install 'metapl[heic]'" in text) == bool(heic)


def test_a_table_beside_class_folders_is_spoken_of(tmp_path):
    write(write(tmp_path, "a"), "b", start=COUNT)
    data = find.load(str(lines(tmp_path, ["file,label", "00.png,a"])))
    assert data.form.classes == ("a", "b")
    assert any(text.startswith("labels.csv beside the folders of the classes") for text in said(data, "left out"))
