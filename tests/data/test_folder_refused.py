"""What is recognised as folders of classes, and what is refused, with the remedy."""

import os

import pytest
from pictures import random_levels, save

from metapl.data.sources import STORED
from metapl.registry.errors import InputError

load, recognise = STORED["folder"][:2]

LEVELS = random_levels(6, 7)


def make(place, names):
    for name in names:
        save(place / name, LEVELS) if name.endswith("png") else (place / name).mkdir(parents=True)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["cat/1.png", "dog/"], {}, r"^class 'dog' has no images: put some into .*dog, or remove the folder$"),
        (["train/cat/1.png", "train/dog/1.png", "test/cat"], {}, r"^class 'cat' has no images: put some into .*test"),
        (
            ["train/a/1.png", "train/b/1.png", "test/c/1.png"],
            {},
            r"test/c: no class of this name to learn from: add",
        ),
        (["train/a/1.png", "train/b/1.png", "val/1.png"], {}, r"val: no class folders: sort its images into them"),
        (["1.png"], {}, r": no class folders: put the images of each class into a folder of its name$"),
        (["unlabelled/1.png"], {}, r": no class folders: "),
        (["train/1.png", "test/1.png"], {}, r": no class folders: "),
        (["data/cat/1.png", "data/dog/1.png"], {}, r": one class folder only, 'data': name the folder that holds"),
        (["a/1.png", "b/1.png"], {}, r"^no class has two labelled examples"),
        (["a/1.png", "b/1.png"], {"size": -1}, r"^size=-1 must be a number of pixels, or 0 for a guess$"),
        (
            ["a/1.png", "b/1.png"],
            {"channels": 2},
            r"^channels=2 must be 1 for grey or 3 for colours, or 0",
        ),
        (["a/1.png", "b/1.png"], {"test": 1.0}, r"^test=1.0 must be a share"),
        (["a/1.png", "a/2.png", "b/1.png"], {"unlabelled": "/nowhere"}, r"^/nowhere: no such file or folder: correct"),
        (["a/1.png", "a/2.png", "b/1.png", "unlabelled"], {}, r"unlabelled: no images and no shards below it: name a"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, names, options, message):
    make(tmp_path, names)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, **options)
    assert len(str(caught.value).splitlines()) == 1


def test_an_image_that_is_none_is_refused(tmp_path):
    make(tmp_path, ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"])
    (tmp_path / "cat" / "1.png").write_bytes(b"text")
    with pytest.raises(InputError, match=r"cat/1\.png: no image that can be read \(unknown format\): remove it$"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat/1.png", "dog/1.JPG"], True),
        (["train/cat/1.png", "test/cat/1.png"], True),
        (["1.png"], False),
        (["cat/1.txt", ".git/1.png", "cat/.1.png"], False),
        (["a/b/c/1.png"], False),
        (["cat"], False),
    ],
)
def test_folders_are_recognised_by_their_names(tmp_path, names, expected):
    for name in names:
        if "." in name:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        else:
            os.mkdir(tmp_path / name)
    assert recognise(tmp_path) is expected


def test_files_are_no_folders(tmp_path):
    assert not recognise(tmp_path / "nowhere")
    assert not recognise(save(tmp_path / "a.png", LEVELS))


def damage(place):
    """Two images of each class that can be read, and one that cannot; so among those without labels."""
    for number, name in enumerate(
        ("cat/1", "cat/2", "cat/3", "dog/1", "dog/2", "dog/3", "unlabelled/1", "unlabelled/2")
    ):
        save(place / f"{name}.png", random_levels(6, 7, seed=number))
    bad = ["cat/2", "dog/3", "unlabelled/2"]
    for name in bad:
        (place / f"{name}.png").write_bytes((place / f"{name}.png").read_bytes()[:60])
    return bad


def test_all_damaged_files_are_in_one_message(tmp_path):
    damage(tmp_path)
    message = r"^2 files are no images that can be read: .*cat/2.png, .*dog/3.png: remove them, or give skip_bad=true$"
    with pytest.raises(InputError, match=message):
        load(tmp_path, test=0.5)


def test_damaged_files_can_be_left_out(tmp_path):
    damage(tmp_path)
    data = load(tmp_path, skip_bad=True, test=0.5)
    assert (len(data.y), len(data.y_test)) == (3, 2)
    (text,) = [note.text for note in data.notes if note.about == "left out"]
    assert text.startswith("3 files that are no images: ")
    assert all(name in text for name in ("cat/2.png", "dog/3.png", "unlabelled/2.png"))
