"""The guide about a new source: its file and its line are all that it takes."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from metapl.data import sources
from metapl.data.sources import find

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "write_a_source.md"


def block(title):
    (found,) = re.findall(rf'^```python title="{re.escape(title)}"\n(.*?)^```$', GUIDE.read_text(), re.M | re.S)
    return found


def imported(name, file):
    location = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(location)
    sys.modules[name] = module
    location.loader.exec_module(module)
    return module


@pytest.fixture
def spirals(tmp_path, monkeypatch):
    """The module of the guide, and the dicts of the sources with its import and its entry."""
    file = tmp_path / "spirals.py"
    file.write_text(block("metapl/data/sources/spirals.py"))
    name = "metapl.data.sources.spirals"
    monkeypatch.setitem(sys.modules, name, None)
    made = imported(name, file).spirals
    here = Path(sources.__file__).read_text()
    line = "from metapl.data.sources.spirals import spirals\n"
    assert line in GUIDE.read_text()
    edited = here.replace("from metapl.data.sources.svhn", f"{line}from metapl.data.sources.svhn")
    edited = edited.replace('    "moons": moons,\n', '    "moons": moons,\n    "spirals": spirals,\n')
    space = {}
    exec(compile(edited, "sources with spirals", "exec"), space)
    assert list(space["EMBEDDED"]) == [*sources.EMBEDDED, "spirals"]
    monkeypatch.setitem(sources.SOURCES, "spirals", space["SOURCES"]["spirals"])
    return made


def test_the_source_of_the_guide_is_selectable_with_its_options(spirals):
    data = find.load("spirals:points=80,arms=4,turns=1")
    assert (len(data.x), len(data.x_test), data.classes) == (80, 80, 4)
    assert data.y.bincount().tolist() == data.y_test.bincount().tolist() == [20] * 4
    again = spirals(points=80, arms=4, turns=1.0)
    assert torch.equal(data.x, again.x)
    assert torch.equal(data.x_test, again.x_test)


def test_a_point_lies_on_its_arm(spirals):
    """Without noise the angle is that of the radius, after the arm's own."""
    data = spirals(points=60, arms=3, turns=0.5, noise=0.0)
    radius = data.x.norm(dim=1)
    angle = torch.atan2(data.x[:, 1], data.x[:, 0]) / (2 * torch.pi)
    away = (angle - 0.5 * radius - data.y / 3) % 1
    assert torch.minimum(away, 1 - away).max() < 1e-5


@pytest.mark.parametrize("options", ["arms=1", "points=2,arms=3", "turn=1"])
def test_what_is_wrong_is_said_in_the_notation(spirals, options):
    with pytest.raises(ValueError, match="spirals") as caught:
        find.load(f"spirals:{options}")
    assert "\n" not in str(caught.value)
