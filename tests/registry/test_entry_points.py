"""Estimators of installed packages: listed, selectable, and harmless when broken."""

import json
import sys
from importlib.metadata import DistributionFinder, PathDistribution
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metapl.cli.main import app
from metapl.estimators import AVAILABLE, ESTIMATORS, exact
from metapl.registry import notation
from metapl.registry.errors import InputError
from metapl.testing import check_estimator

MODULE = '''
from metapl import estimators

def halved(*, factor: float = 0.5):
    """Half of it."""
    inner = estimators.exact()

    def estimate(instance, memory):
        feedback, memory = inner.estimate(instance, memory)
        return feedback._replace(grads=tuple(factor * one for one in feedback.grads)), memory

    return inner._replace(estimate=estimate, claim="approximate")

number = 3
'''
POINTS = """[metapl.estimators]
halved = outside_estimators:halved
exact = outside_estimators:halved
missing = outside_estimators:nobody
absent = no_such_module_at_all:halved
number = outside_estimators:number
"""


class Finder(DistributionFinder):
    """Finds one distribution, as an installed package would be found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(self, *_):
        return None

    def find_distributions(self, *_):
        return [PathDistribution(self.folder)]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    folder = tmp_path / "outside-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(POINTS)
    (tmp_path / "outside_estimators.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder(folder)])
    yield
    sys.modules.pop("outside_estimators", None)


def test_without_packages_there_are_ours_only():
    assert set(ESTIMATORS) <= set(AVAILABLE)
    assert len(AVAILABLE) == len(list(AVAILABLE))


@pytest.mark.usefixtures("installed")
def test_a_declared_estimator_is_listed_built_and_checked():
    assert "halved" in list(AVAILABLE)
    assert len(AVAILABLE) == len(list(AVAILABLE))
    assert notation.build("halved:factor=0.25", AVAILABLE, "estimator").claim == "approximate"
    check_estimator(AVAILABLE["halved"])


@pytest.mark.usefixtures("installed")
def test_nothing_is_imported_before_it_is_asked_for():
    assert AVAILABLE["none"] is ESTIMATORS["none"]
    list(AVAILABLE)
    assert "outside_estimators" not in sys.modules


@pytest.mark.usefixtures("installed")
def test_our_names_stay_ours():
    assert AVAILABLE["exact"] is exact
    assert list(AVAILABLE).count("exact") == 1


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", "outside cannot be loaded"), ("absent", "no_such_module_at_all"), ("number", "not a constructor")],
)
def test_a_broken_one_says_whose_it_is(name, message):
    with pytest.raises(InputError, match=message):
        AVAILABLE[name]


@pytest.mark.usefixtures("installed")
def test_an_unknown_name_is_compared_with_those_of_packages_too():
    with pytest.raises(InputError, match="did you mean 'halved'"):
        notation.build("halvd", AVAILABLE, "estimator")


@pytest.mark.usefixtures("installed")
def test_the_list_shows_what_it_can_and_names_what_it_cannot(tmp_path):
    result = CliRunner().invoke(app, ["grads", "--json", str(tmp_path / "list.json")])
    assert result.exit_code == 0, result.output
    assert "halved:factor=0.5" in result.output
    assert result.output.count("not listed: ") == 3
    assert {row["name"] for row in json.loads((tmp_path / "list.json").read_text())} == {*ESTIMATORS, "halved"}
