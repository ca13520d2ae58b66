"""The floors: in `pyproject.toml`, in the picture of docs/architecture.md and in the docstring of each folder."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGE = (ROOT / "docs" / "architecture.md").read_text()
LOOSE = {"__init__", "__main__"}


def layers():
    """The folders of each floor, from the lowest."""
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    assert contract["type"] == "layers"
    return [[one.strip().removeprefix("metapl.") for one in layer.split("|")] for layer in contract["layers"][::-1]]


FLOORS = [(number, name) for number, names in enumerate(layers(), 1) for name in names]


def test_there_are_at_most_eight():
    assert len(layers()) <= 8


def test_every_folder_has_a_floor():
    packages = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(name for _, name in FLOORS) == sorted(one.split(".")[1] for one in packages if one.count(".") == 1)


def test_nothing_else_is_loose_at_the_top():
    assert {file.stem for file in (ROOT / "metapl").glob("*.py")} == LOOSE


def test_the_picture_shows_the_floors():
    drawn = re.findall(r"^ (\d)  ([\w │]+?)(?:   .*)?$", PAGE, flags=re.MULTILINE)
    found = [(int(number), names.split(" │ ")) for number, names in drawn]
    assert found == list(enumerate(layers(), 1))[::-1]


@pytest.mark.parametrize(("number", "name"), FLOORS)
def test_a_folder_says_on_which_floor_it_stands(number, name):
    about = importlib.import_module(f"metapl.{name}").__doc__
    assert re.findall(r"^Floor (\d): imports ", about, flags=re.MULTILINE) == [str(number)]
