"""Images that vanish or break while a run goes on."""

import json
import shutil

import pytest
from command import invoke
from going_on import ALONE, contents, resumed
from pictures import png, random_levels

from metapl.data import loader
from metapl.data.formats import images as data_images
from metapl.data.sources import find

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture
def pictures(tmp_path):
    """Sixty images in folders of three classes, and how to train on them."""
    images = tmp_path / "images"
    for index, levels in enumerate(random_levels(60, 6, 6)):
        path = images / str(index % 3) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(levels))
    args = ("--data", images, *ALONE[: ALONE.index("--labels")], "--labels", 9, "--validation", 6, "--device", "cpu")
    return images, (*args, "--no-baselines", "--model", "mlp:width=6,depth=1")


def shorten(folder):
    """Leave half of each file."""
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm", [shutil.rmtree, shorten])
def test_an_image_that_vanishes_or_breaks(stop, tmp_path, monkeypatch, pictures, harm):
    """Of images that are read when they are asked for: the run stops in one line that names it, and goes on later."""
    images, args = pictures
    monkeypatch.setattr(data_images, "IN_MEMORY", 0)
    assert invoke("train", *args, "--out", tmp_path / "whole").code == 0
    shutil.copytree(images, tmp_path / "copy")
    stop("mpl", 2, lambda: harm(images))
    outcome = invoke("train", *args, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert ".png" in outcome.err
    assert "of mpl is stored, `metapl train --resume" in outcome.err
    shutil.copytree(tmp_path / "copy", images, dirs_exist_ok=True)
    assert resumed(tmp_path / "run") == contents(tmp_path / "whole")


def test_an_image_that_breaks_and_can_be_done_without(stop, tmp_path, monkeypatch, pictures):
    """Said once, by its name; the batches that it is in give way to others, and all files of a run are there."""
    images, args = pictures
    args = ("--data", f"{images}:skip_bad=true", *args[2:])
    monkeypatch.setattr(data_images, "IN_MEMORY", 0)
    assert invoke("train", *args, "--out", tmp_path / "whole").code == 0
    split = json.loads((tmp_path / "whole" / "split.json").read_text())
    harmed = find.load(f"{images}", "").x._files[split["unlabelled"][0][0]]
    monkeypatch.setattr(loader, "ahead", lambda batches: batches)  # or the next batch may have been read by then
    stop("mpl", 1, lambda: harmed.write_bytes(b"no image"))
    outcome = invoke("train", *args, "--out", tmp_path / "run")
    assert outcome.code == 0
    assert outcome.err.count("\n") == outcome.err.count(str(harmed)) == 1
    assert outcome.err.endswith("; batches with it give way to others\n")
    found, expected = contents(tmp_path / "run"), contents(tmp_path / "whole")
    assert found.keys() == expected.keys()
    assert found["checkpoints/final.safetensors"] != expected["checkpoints/final.safetensors"]


def test_images_all_of_which_break_end_the_run(stop, tmp_path, monkeypatch, pictures):
    images, args = pictures
    monkeypatch.setattr(data_images, "IN_MEMORY", 0)
    stop("mpl", 2, lambda: shutil.rmtree(images))
    outcome = invoke("train", "--data", f"{images}:skip_bad=true", *args[2:], "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "10 batches in a row cannot be read, the last one since" in outcome.err
    assert "of mpl is stored, `metapl train --resume" in outcome.err.splitlines()[-1]


def test_images_that_fit_into_memory_are_read_once(stop, tmp_path, pictures):
    """They may vanish while the run goes on."""
    images, args = pictures
    assert invoke("train", *args, "--out", tmp_path / "whole").code == 0
    stop("mpl", 2, lambda: shutil.rmtree(images))
    assert invoke("train", *args, "--out", tmp_path / "run").code == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
