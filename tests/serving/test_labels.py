"""Labels that fresh examples come with, and `metapl eval --data`: counted by hand."""

import json

import numpy as np
import pytest
import torch
from pictures import random_levels, save
from PIL import Image

from metapl.cli.evaluate import evaluate
from metapl.cli.train import train
from metapl.data.form import Form
from metapl.registry.errors import InputError
from metapl.serving import labels, predict
from metapl.training import run_folder

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

TINY = {"steps": 4, "finetune_steps": 2, "model": "mlp:width=8,depth=1", "device": "cpu", "method": "supervised"}


def photos(place, counts=(8, 6), start=0):
    for label, count in zip(("cat", "dog"), counts, strict=True):
        for number in range(start, start + count):
            save(place / label / f"{number}.png", random_levels(6, 7, seed=1000 * (label == "dog") + number))
    return place


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    train(data=str(photos(folder / "own")), out=folder / "run", **TINY)
    return folder / "run"


def test_fresh_images_in_folders_of_classes_are_measured(run, tmp_path, capsys):
    """The accuracy is that of the rows that predict writes."""
    place = photos(tmp_path / "new", (5, 7), start=50)
    save(place / "other" / "1.png", random_levels(6, 7, seed=5))
    evaluate(run, data=[place], device="cpu", json=tmp_path / "m.json")
    assert "12 fresh examples" in capsys.readouterr().out
    measured = json.loads((tmp_path / "m.json").read_text())
    serving = run_folder.serve(run, "supervised", "cpu")
    with (tmp_path / "p.csv").open("w") as file:
        count = predict.write(file, serving, [place])
    rows = [row.split(",") for row in (tmp_path / "p.csv").read_text().splitlines()[1:]]
    pairs = [(name.split("/")[-2], found) for name, found, *_ in rows if "/other/" not in name]
    right = sum(one == other for one, other in pairs)
    assert (count.rows, count.labelled, count.right) == (13, 12, right)
    assert sum(count.mistakes.values()) == 12 - right
    assert measured["supervised"]["top1"] == pytest.approx(right / 12)


def test_fresh_images_with_a_file_of_labels_are_measured(run, tmp_path):
    photos(tmp_path / "classes", (5, 7), start=50)
    lines = ["filename,label"]
    for number, file in enumerate(sorted((tmp_path / "classes").rglob("*.png"))):
        save(tmp_path / "flat" / f"{number}.png", np.array(Image.open(file)))
        lines += [f"{number}.png,{file.parent.name}"]
    (tmp_path / "flat" / "labels.csv").write_text("\n".join(lines))
    evaluate(run, data=[tmp_path / "classes"], device="cpu", json=tmp_path / "one.json")
    evaluate(run, data=[tmp_path / "flat"], device="cpu", json=tmp_path / "other.json")
    one, other = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "other"))
    assert other == {name: pytest.approx(values) for name, values in one.items()}
    (tmp_path / "flat" / "more.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no labels of the classes"):
        evaluate(run, data=[tmp_path / "flat"], device="cpu")


def test_every_network_of_the_run_is_measured(run, tmp_path):
    evaluate(run, data=[photos(tmp_path / "new")], device="cpu", json=tmp_path / "m.json")
    summary = json.loads((run / "summary.json").read_text())
    assert json.loads((tmp_path / "m.json").read_text()).keys() == summary["test"].keys()


def test_examples_without_labels_cannot_be_measured(run, tmp_path):
    save(tmp_path / "x" / "1.png", random_levels(6, 7))
    with pytest.raises(InputError, match="x: no labels of the classes cat, dog: give folders called so, a table"):
        evaluate(run, data=[tmp_path / "x"], device="cpu")


IMAGES = Form("images", (1, 6, 7), ("cat", "dog"), {"mean": [0.5], "std": [0.2]})


def test_a_single_folder_of_a_class_is_no_label(tmp_path):
    """It may be called so for another reason."""
    save(tmp_path / "cat" / "1.png", random_levels(6, 7))
    assert labels.known(IMAGES, [tmp_path], [str(tmp_path / "cat" / "1.png")]) == [""]
    names = [str(tmp_path / "a" / label / "1.png") for label in ("cat", "dog", "bird")]
    assert labels.known(IMAGES, [tmp_path], names) == ["cat", "dog", ""]
    assert labels.known(IMAGES, [tmp_path / "a" / "cat"], names) == ["", "", ""]


@pytest.mark.parametrize(
    ("y", "more", "expected"),
    [
        (["dog", "cat", "", "?"], {}, ["dog", "cat", "", ""]),
        ([1, 0, -1, 7], {"classes": ["cat", "dog"]}, ["dog", "cat", "", ""]),
        ([1.0, 0.0, np.nan, -1.0], {"classes": ["dog", "cat"]}, ["cat", "dog", "", ""]),
        ([5, 6, 7, 8], {}, ["", "", "", ""]),
        ([1, 0, 1], {"classes": ["cat", "dog"]}, ["", "", "", ""]),
    ],
)
def test_labels_of_arrays(tmp_path, y, more, expected):
    np.savez(tmp_path / "a.npz", x=random_levels(4, 6, 7), y=np.array(y), **more)
    names = [f"{tmp_path / 'a.npz'}[{number}]" for number in range(4)]
    assert labels.known(IMAGES, [tmp_path / "a.npz"], names) == expected


def test_labels_of_tables_in_any_spelling(tmp_path):
    columns = [{"name": "a", "kind": "number", "mean": 0.0, "std": 1.0, "missing": False}]
    form = Form("table", (1,), ("0", "1"), {"columns": columns, "label": "y", "marker": ["7"]})
    (tmp_path / "t.csv").write_text("a,y\n1,1.0\n2,0\n3,\n4,unlabelled\n5,7\n6,9\n")
    found = labels.known(form, [tmp_path / "t.csv"], [])
    assert found == ["1", "0", "", "", "", "9"]
    assert torch.equal(labels.indices(form, found), torch.tensor([1, 0, -1, -1, -1, -1]))
    (tmp_path / "t.csv").write_text("a\n1\n2\n")
    assert labels.known(form, [tmp_path / "t.csv"], []) == ["", ""]
