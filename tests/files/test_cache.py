"""What can be made again makes room for what is wanted now."""

import os

import pytest

from metapl.files import cache
from metapl.registry.errors import InputError

PIECE = 2**16


@pytest.fixture
def folder(tmp_path):
    """Three things of one or two files, the oldest by its youngest file last in the alphabet."""
    for name, pieces, when in (("b", 1, 300), ("c", 2, 100), ("c.done", 1, 150), ("a", 1, 200), ("a.json", 1, 50)):
        (tmp_path / name).write_bytes(os.urandom(PIECE * pieces))
        os.utime(tmp_path / name, (when, when))
    return tmp_path


def names(folder):
    return sorted(one.name for one in folder.iterdir())


@pytest.mark.parametrize(
    ("size", "left"),
    [
        (0, ["a", "a.json", "b", "c", "c.done"]),
        (2, ["a", "a.json", "b", "c", "c.done"]),
        (3, ["a", "a.json", "b"]),
        (5, ["a", "a.json", "b"]),
        (6, ["b"]),
        (8, []),
    ],
)
def test_the_oldest_goes_first_and_whole(folder, monkeypatch, size, left):
    monkeypatch.setenv(cache.VARIABLE, repr(8 * PIECE / 2**30))
    removed = cache.make_room(folder, size * PIECE)
    assert names(folder) == left
    assert removed.size == (6 - sum(2 if name == "c" else 1 for name in left)) * PIECE
    assert removed.things == 3 - len({name[0] for name in left})


def test_nothing_is_removed_for_what_cannot_have_room(folder, monkeypatch):
    before = names(folder)
    monkeypatch.setenv(cache.VARIABLE, repr(8 * PIECE / 2**30))
    assert cache.make_room(folder, 9 * PIECE) is None
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setattr(cache, "SHARE", 0.0)
    assert cache.make_room(folder, 1) is None
    assert names(folder) == before


def test_a_file_that_is_open_is_read_to_its_end(folder, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, "0")
    with (folder / "b").open("rb") as file:
        assert cache.make_room(folder, 0).things == 3
        assert len(file.read()) == PIECE


def test_the_limit_is_that_of_the_variable(monkeypatch):
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    assert cache.most() == 64 * 2**30
    monkeypatch.setenv(cache.VARIABLE, "1.5")
    assert cache.most() == 1.5 * 2**30
    for wrong in ("-1", "nan", "many"):
        monkeypatch.setenv(cache.VARIABLE, wrong)
        with pytest.raises(InputError, match=f"METAPL_CACHE={wrong} must be a number of GiB"):
            cache.most()
