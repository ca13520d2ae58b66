"""What is found below a folder, against lists by hand."""

import os

import pytest
import torch
from pictures import random_levels, save

from metapl.data.formats import images
from metapl.data.formats.files import holds, subfolders
from metapl.registry.errors import InputError

ODD = ["a b.png", "ä.png", "%20.png", "#1,x=2:3.PNG", "-rf.png", "'q\".png", "100%.jpeg", "日本.gif", "x.tar.png"]


def test_images_are_found_in_the_order_of_their_paths(tmp_path):
    names = [*ODD, "b/1.png", "b/10.png", "b/2.png", "b/c/d/e.webp", "B.tiff", "b-1/x.ppm", "b.pgm", "z.bmp", "y.tif"]
    skipped = [".hidden.png", ".folder/a.png", "b/._1.png", "notes.txt", "png", "a.png.txt", "x.npy"]
    for name in names + skipped:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [file.relative_to(tmp_path).as_posix() for file in images.find(tmp_path)] == sorted(names)


def test_links_are_followed_once(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    save(elsewhere / "a.png", random_levels(2, 2))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "linked").symlink_to(elsewhere)
    (folder / "back").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    assert images.find(folder) == [folder / "linked" / "a.png"]


def test_an_image_may_have_any_name(tmp_path):
    for name in ODD:
        save(tmp_path / name, random_levels(3, 3), format="PNG")
    x = images.gather([tmp_path], (1, 3, 3)).x
    assert (x[torch.arange(len(ODD))] == torch.from_numpy(random_levels(3, 3))).all()


def test_the_order_of_the_file_system_does_not_matter(tmp_path, monkeypatch):
    for name in ("b/2.png", "b/1.png", "a.png", "c/d/1.png", "c/1.png"):
        save(tmp_path / name, random_levels(2, 2))
    expected = images.find(tmp_path), subfolders(tmp_path)
    listed = os.scandir

    class Reversed:
        def __init__(self, folder):
            with listed(folder) as entries:
                self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

        def __iter__(self):
            return self.entries

        def __next__(self):
            return next(self.entries)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def close(self):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert [entry.name for entry in os.scandir(tmp_path)] == ["c", "b", "a.png"]
    assert (images.find(tmp_path), subfolders(tmp_path)) == expected


def test_folders_and_what_is_directly_in_them(tmp_path):
    for name in ("b/x.PNG", "10/y/x.png", "2/x.txt", ".d/x.png", "e/.x.png"):
        save(tmp_path / name, random_levels(2, 2), format="PNG")
    (tmp_path / "f" / "folder.png").mkdir(parents=True)
    assert [one.name for one in subfolders(tmp_path)] == ["10", "2", "b", "e", "f"]
    assert [one.name for one in subfolders(tmp_path) if holds(one, (".png",))] == ["b"]


def test_a_folder_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", refuse)
    for look in (images.find, subfolders):
        with pytest.raises(InputError, match=r"cannot be read \(Permission denied\): allow it or remove it$"):
            look(tmp_path)
