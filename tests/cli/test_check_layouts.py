"""`metapl data check` on fifteen layouts that people have: what it says of each before anything is learnt."""

import csv
import gzip
import json

import numpy as np
import pytest
import typer
from pictures import members_of, random_levels, save, shard
from PIL import Image
from typer.testing import CliRunner

from metapl.cli import data

app = typer.Typer()
app.add_typer(data.app, name="data")


def photos(place, count=10, start=0, classes=("cat", "dog")):
    for label, name in enumerate(classes):
        for number in range(start, start + count):
            save(place / name / f"{number:02d}.png", random_levels(8, 8, 3, seed=1000 * label + number))


def class_folders(place):
    photos(place)
    photos(place, 6, 40, ["Unlabeled"])
    (place / "cat" / "notes.txt").write_text("")


def roboflow(place):
    for part, start in (("train", 0), ("valid", 20), ("test", 40)):
        photos(place / part, 6, start)


def capitals(place):
    photos(place / "Training")
    photos(place / "Testing", 4, 50)


def copies(place):
    photos(place)
    for file in sorted(place.rglob("*.png")):
        file.with_name(f"{file.stem} (copy).png").write_bytes(file.read_bytes())


def labels_beside(place):
    photos(place, 20, classes=["images"])
    rows = [f"{number:02d}.png,{'ab'[number % 2]}" for number in range(12)]
    (place / "labels.csv").write_text("\n".join(["file,label", *rows]))


def imagenet_list(place):
    photos(place, 12, classes=["images"])
    (place / "val.txt").write_text("\n".join(f"{number:02d}.png {number % 3}" for number in range(12)))


def deep_files(place):
    for number in range(12):
        (place / "ab"[number % 2]).mkdir(exist_ok=True, parents=True)
        levels = random_levels(8, 8, seed=number).astype(np.uint16) * 16
        Image.fromarray(levels).save(place / "ab"[number % 2] / f"{number}.png")


def shards(place):
    shard(place / "train" / "1.tar", members_of(random_levels(12, 8, 8), [0, 1] * 6))
    shard(place / "dev" / "1.tar", members_of(random_levels(4, 8, 8, seed=9), [0, 1] * 2))


def write(place, rows, name="t.csv"):
    place.mkdir(parents=True, exist_ok=True)
    with (place / name).open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def titanic(place):
    rows = [[1 + index % 3, "" if index % 9 == 0 else index * 7 % 80, index % 2] for index in range(60)]
    write(place, [["class", "age", "survived"], *rows])


def sensors(place):
    rows = [
        [-999 if i % 20 == 3 else i * 7 % 50, i * 3 % 11, f"p{i // 6}", ["ok", "bad", "-"][i % 3]] for i in range(60)
    ]
    write(place, [["temp", "load", "patient", "state"], *rows])


def splits(place):
    rows = [[i * 7 % 50, ["train", "train", "val", "test"][i % 4], "xy"[i // 4 % 2]] for i in range(60)]
    write(place, [["a", "split", "label"], *rows])


def json_lines(place):
    place.mkdir()
    rows = [{"a": i * 7 % 50, "b": "uv"[i % 2], "label": ["x", "y", None][i % 3]} for i in range(30)]
    (place / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))


def packed(place):
    place.mkdir()
    (place / "t.csv.gz").write_bytes(
        gzip.compress(b"a,label\n" + b"".join(b"%d,%d\n" % (i * 7 % 50, i % 2) for i in range(30)))
    )


def fractions(place):
    place.mkdir()
    np.savez(place / "t.npz", x_train=(random_levels(20, 8, 8, 3) / 255).astype("float32"), y_train=np.arange(20) % 2)


def semi_supervised(place):
    place.mkdir()
    x = np.random.default_rng(0).normal(size=(40, 5))
    y = np.where(np.arange(40) < 12, np.arange(40) % 3, -1)
    np.savez(place / "t.npz", x=x, y=y, x_val=x[:6] + 1, y_val=y[:6], ids=np.arange(40))


LAYOUTS = [
    (
        class_folders,
        "",
        ["'Unlabeled' means no label: 6 images", "left out   1 files that are no images", ".txt", "mirrored"],
    ),
    (roboflow, "", ["validation 12 of those to train on"]),
    (capitals, "", ["8 to test", "│ cat"]),
    (copies, "", ["20 examples are copies of others, all on one side of the test"]),
    (
        labels_beside,
        "",
        ["from labels.csv: column 'file' names the images", "8 images that labels.csv does not name have none"],
    ),
    (imagenet_list, "", ["from val.txt", "of 3 classes"]),
    (deep_files, "", ["white is 4095, since no level exceeds 4080"]),
    (shards, "", ["test       dev/ is the test set, since there is no other"]),
    (
        titanic,
        "/t.csv",
        ["'class', by its name", "may also be 'survived': label=survived", "7 missing"],
    ),
    (sensors, "/t.csv", ["'-' means no label: 20 rows", "missing=-999", "group=patient", "'patient': category of 10"]),
    (splits, "/t.csv", ["by column 'split': 30 train, 15 test, 15 validation", "'split': split"]),
    (json_lines, "/t.jsonl", ["10 have none", "'b': category of 2: 'u', 'v'"]),
    (packed, "/t.csv.gz", ["'a': number, 0 to 49"]),
    (fractions, "/t.npz", ["float32 [8, 8, 3] are images, black is 0 and white 1: read_as=numbers"]),
    (
        semi_supervised,
        "/t.npz",
        ["'-1' means no label: 28 examples", "arrays of other names: ids", "validation arrays are the test set"],
    ),
]


@pytest.mark.parametrize(("make", "file", "words"), LAYOUTS, ids=[layout[0].__name__ for layout in LAYOUTS])
def test_what_is_said_of_a_layout(tmp_path, make, file, words):
    make(tmp_path / "d")
    result = CliRunner().invoke(app, ["data", "check", f"{tmp_path}/d{file}"])
    assert result.exception is None
    assert result.exit_code == 0
    for word in words:
        assert word in result.output
