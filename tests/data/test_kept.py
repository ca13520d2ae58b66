"""What was found in files is kept as long as they are the same, and no longer."""

import os

import pytest
from pictures import random_levels, save

from metapl.data.formats import damaged, kept
from metapl.data.sources import find


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "metapl" / "decoded"


@pytest.fixture
def files(tmp_path):
    found = [save(tmp_path / "in" / f"{number}.png", random_levels(6, 7, seed=number)) for number in range(6)]
    found[4].write_bytes(b"no image")
    return found


@pytest.fixture
def looked(monkeypatch):
    """The names of the files that are looked at."""
    seen, plain = [], damaged.brightest
    monkeypatch.setattr(damaged, "MANY", 0)
    monkeypatch.setattr(damaged, "brightest", lambda file: seen.append(file.name) or plain(file))
    return seen


def test_it_is_made_once(place):
    made = []
    for _ in range(3):
        assert kept.once("name", lambda: made.append(1) or [[1, None], "ü"]) == [[1, None], "ü"]
    assert made == [1]


def test_damaged_files_are_looked_for_once_and_then_looked_at_again(files, looked):
    assert damaged.damaged(files) == [files[4]]
    looked.clear()
    assert damaged.damaged(files) == [files[4]]
    assert looked == ["4.png"]


def test_a_damaged_file_that_was_mended_is_sound(files, looked):
    damaged.damaged(files)
    save(files[4], random_levels(6, 7, seed=9))
    assert damaged.damaged(files) == []


@pytest.mark.parametrize("change", ["size", "time", "order", "fewer", "about"])
def test_other_files_have_another_key(files, change):
    before = kept.key(files, "damaged")
    if change == "size":
        files[2].write_bytes(files[2].read_bytes() + b" ")
    if change == "time":
        os.utime(files[2], ns=(1, 1))
    others = {"order": files[::-1], "fewer": files[1:]}.get(change, files)
    assert kept.key(others, "copies" if change == "about" else "damaged") != before


def test_a_file_that_is_gone_is_damaged(files, looked):
    files[1].unlink()
    assert damaged.damaged(files) == [files[1], files[4]]


def test_a_place_that_cannot_be_written_costs_time_alone(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kept.once("name", lambda: [1]) == [1]
    assert "is looked for again next time" in caplog.text


def test_skipped_files_are_told_again(tmp_path, looked):
    for label in "ab":
        for number in range(6):
            save(tmp_path / "d" / label / f"{number}.png", random_levels(6, 7, seed=ord(label) + 9 * number))
    (tmp_path / "d" / "a" / "9.png").write_bytes(b"no image")
    for _ in range(2):
        data = find.load(f"{tmp_path}/d:skip_bad=true")
        assert any(note.text.startswith("1 files that are no images: ") for note in data.notes)
