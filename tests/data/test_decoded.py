"""Decoded images on the disk: each is decoded once, and a damaged one again."""

import os

import numpy as np
import pytest
import torch
from pictures import random_levels, save

from metapl.data import progress
from metapl.data.examples import join
from metapl.data.formats import decoded, images
from metapl.data.formats.moments import moments
from metapl.files import cache as cache_folder
from metapl.registry.errors import InputError

COUNT, SHAPE = 12, (3, 8, 9)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded, "LEAST", 0)
    return tmp_path / "cache" / "metapl" / "decoded"


@pytest.fixture
def files(tmp_path):
    return [save(tmp_path / "in" / f"{number:02d}.png", random_levels(8, 9, 3, seed=number)) for number in range(COUNT)]


@pytest.fixture
def decoding(monkeypatch):
    """The names of the files that are decoded from now on."""
    seen, plain = [], images.decode

    def counted(file, shape, white):
        seen.append(file.name)
        return plain(file, shape, white)

    monkeypatch.setattr(images, "decode", counted)
    return seen


def levels(number):
    return random_levels(8, 9, 3, seed=number).transpose(2, 0, 1)


@pytest.mark.parametrize("in_memory", [0, 2**30])
def test_each_image_is_decoded_once(files, decoding, monkeypatch, in_memory):
    monkeypatch.setattr(images, "IN_MEMORY", in_memory)
    for _ in range(3):
        x = images.load(files, SHAPE)
        assert isinstance(x, torch.Tensor) == bool(in_memory)
        found = x[torch.tensor([5, 0, 11, 5])]
        np.testing.assert_array_equal(found.numpy(), [levels(number) for number in (5, 0, 11, 5)])
    assert sorted(set(decoding)) == sorted(
        file.name for file in files if in_memory or file.name[:2] in ("00", "05", "11")
    )
    assert in_memory == 0 or len(decoding) == COUNT


def test_what_a_killed_process_had_is_not_decoded_again(files, decoding, monkeypatch):
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    images.load(files, SHAPE)[torch.arange(4)]
    decoding.clear()
    images.load(files, SHAPE)[torch.arange(COUNT)]
    assert sorted(decoding) == [f"{number:02d}.png" for number in range(4, COUNT)]


@pytest.mark.parametrize("spoil", [b"\x00" * 50, b"\xff" * 50])
def test_an_image_that_has_changed_on_the_disk_is_decoded_again(files, decoding, cache, spoil):
    images.load(files, SHAPE)
    (path,) = (one for one in cache.iterdir() if not one.suffix)
    content = bytearray(path.read_bytes())
    at = 3 * 8 * 9 * 7 + 100
    content[at : at + 50] = spoil
    path.write_bytes(content)
    decoding.clear()
    np.testing.assert_array_equal(images.load(files, SHAPE).numpy(), [levels(number) for number in range(COUNT)])
    assert decoding == ["07.png"]


def test_a_store_that_was_cut_short_is_filled_again(files, cache):
    images.load(files, SHAPE)
    (path,) = (one for one in cache.iterdir() if not one.suffix)
    path.write_bytes(path.read_bytes()[:300])
    np.testing.assert_array_equal(images.load(files, SHAPE).numpy(), [levels(number) for number in range(COUNT)])


def test_a_file_that_has_changed_has_another_store(files, decoding):
    images.load(files, SHAPE)
    save(files[3], random_levels(8, 9, 3, seed=99))
    os.utime(files[3], ns=(1, 1))
    np.testing.assert_array_equal(images.load(files, SHAPE)[3].numpy(), levels(99))


@pytest.mark.parametrize("change", [{"shape": (3, 9, 8)}, {"shape": (1, 8, 9)}, {"files": slice(1, None)}])
def test_another_shape_and_other_files_have_another_store(files, decoding, change):
    images.load(files, SHAPE)
    decoding.clear()
    other = files[change.get("files", slice(None))]
    found = images.load(other, change.get("shape", SHAPE))
    assert len(decoding) == len(other) == len(found)


def test_names_may_be_relative(files, decoding, monkeypatch):
    images.load(files, SHAPE)
    decoding.clear()
    monkeypatch.chdir(files[0].parent)
    images.load([file.relative_to(files[0].parent) for file in files], SHAPE)
    assert decoding == []


def test_few_images_are_not_stored(files, cache, monkeypatch):
    monkeypatch.setattr(decoded, "LEAST", COUNT * 3 * 8 * 9 + 1)
    images.load(files, SHAPE)
    assert not cache.exists()


def test_a_place_that_cannot_be_written_costs_the_store_alone(files, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    np.testing.assert_array_equal(images.load(files, SHAPE)[2].numpy(), levels(2))
    assert "cannot be stored" in caplog.text


def test_a_disk_with_too_little_room_is_left_alone(files, cache, monkeypatch, caplog):
    monkeypatch.setattr(cache_folder, "SHARE", 0.0)
    np.testing.assert_array_equal(images.load(files, SHAPE)[2].numpy(), levels(2))
    assert list(cache.iterdir()) == []
    assert "too little room" in caplog.text


def test_damaged_files_are_named_as_without_a_store(files):
    files[4].write_bytes(b"no image")
    with pytest.raises(InputError, match=r"04\.png"):
        images.load(files, SHAPE)


def test_reading_is_told(files, monkeypatch):
    monkeypatch.setattr(images, "_CHUNK", 5)
    heard = []
    with progress.listening(lambda *told: heard.append(told)):
        images.load(files, SHAPE)
    assert heard == [("reading images", 5, 12), ("reading images", 10, 12), ("reading images", 12, 12)]
    images.load(files, SHAPE)
    assert len(heard) == 3


def test_levels_are_counted_once(files, decoding, cache, monkeypatch):
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    x = images.load(files, SHAPE)
    every = np.stack([levels(number) for number in range(COUNT)]) / 255
    np.testing.assert_allclose(moments(x)[0], every.mean((0, 2, 3)), rtol=1e-13)
    for path in cache.iterdir():
        if path.suffix != ".json":
            path.unlink()
    decoding.clear()
    mean, std = moments(images.load(files, SHAPE))
    np.testing.assert_allclose(std, every.std((0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(mean, every.mean((0, 2, 3)), rtol=1e-13)
    assert decoding == []


@pytest.mark.parametrize("spoil", [b"", b"{}", b"[]", b"null", b"\xff", b'{"crc32": 1, "found": [[1]]}', None])
def test_counts_that_are_damaged_are_made_again(files, cache, monkeypatch, spoil):
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    expected = moments(images.load(files, SHAPE))
    (path,) = (one for one in cache.iterdir() if one.suffix == ".json")
    path.write_bytes(path.read_bytes().replace(b"1", b"2") if spoil is None else spoil)
    assert moments(images.load(files, SHAPE)) == expected


def test_moments_of_stores_behind_one_another_are_those_of_all(files, monkeypatch):
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    x = join(images.load(files[:5], SHAPE), images.load(files[5:], SHAPE))
    every = np.stack([levels(number) for number in range(COUNT)]) / 255
    mean, std = moments(x)
    np.testing.assert_allclose(mean, every.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, every.std((0, 2, 3)), rtol=1e-12)


def test_what_was_used_longest_ago_makes_room(tmp_path, monkeypatch, caplog):
    """Three stores of one image each; there is room for two."""
    place, size = tmp_path / "cache" / "metapl" / "decoded", 3 * 64 * 64
    files = [save(tmp_path / "in" / f"{number}.png", random_levels(64, 64, 3, seed=number)) for number in range(3)]
    monkeypatch.setenv("METAPL_CACHE", str(3.2 * size / 2**30))
    for number, when in ((0, 100), (1, 50)):
        images.load(files[number : number + 1], (3, 64, 64))
        for one in place.iterdir():
            if one.stat().st_mtime > 1000:
                os.utime(one, (when, when))
    oldest = {one.name for one in place.iterdir() if one.stat().st_mtime == 50}
    before = {one.name for one in place.iterdir()}
    images.load(files[2:], (3, 64, 64))
    after = {one.name for one in place.iterdir()}
    assert before - after == oldest
    assert "METAPL_CACHE" in caplog.text


def test_a_limit_that_is_no_number(files, monkeypatch):
    monkeypatch.setenv("METAPL_CACHE", "much")
    with pytest.raises(InputError, match="METAPL_CACHE=much must be a number of GiB"):
        images.load(files, SHAPE)
