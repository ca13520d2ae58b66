"""`import metapl as mp`: what its names are, where they come from, and that they are documented."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import metapl as mp

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "which_piece.md").read_text()


def typed():
    """What a type checker reads: the names imported under TYPE_CHECKING."""
    body = ast.parse(Path(mp.__file__).read_text()).body
    block = next(one for one in body if isinstance(one, ast.If))
    return [(one.module, alias) for one in block.body for alias in one.names]


def test_there_are_as_many_as_one_can_survey():
    assert 50 <= len(mp.__all__) <= 70
    assert mp.__all__ == sorted(set(mp.__all__))


@pytest.mark.parametrize("name", mp.__all__)
def test_a_name_is_there_and_documented(name):
    assert inspect.getdoc(getattr(mp, name))
    assert re.search(rf"`mp\.{name}`", PAGE), "not on the page of pieces"


def test_the_page_names_nothing_else():
    assert set(re.findall(r"\bmp\.(\w+)", PAGE)) <= set(mp.__all__)


def test_a_type_checker_sees_the_same_objects():
    assert sorted(alias.asname or alias.name for _, alias in typed()) == mp.__all__
    for module, alias in typed():
        there = importlib.import_module(module)
        found = getattr(there, alias.name, None) or importlib.import_module(f"{module}.{alias.name}")
        assert getattr(mp, alias.asname or alias.name) is found, alias.name


def test_no_function_has_the_name_of_a_module():
    """An import of the module would put it in place of the function."""
    for name in mp.__all__:
        if not isinstance(getattr(mp, name), types.ModuleType):
            assert not (ROOT / "metapl" / name).exists(), name
            assert not (ROOT / "metapl" / f"{name}.py").exists(), name


def test_completion_shows_them_before_any_is_used():
    code = "import sys, metapl; print('torch' in sys.modules, set(metapl.__all__) <= set(dir(metapl)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.split() == ["False", "True"]


def test_a_star_brings_them_all():
    space = {}
    exec("from metapl import *", space)
    assert set(mp.__all__) <= set(space)


def test_what_is_not_there_is_said_in_a_line():
    with pytest.raises(AttributeError, match=r"^module 'metapl' has no attribute 'nothing'$"):
        mp.nothing  # noqa: B018
    with pytest.raises(AttributeError, match=r"^metapl\.types moved to metapl\.core\.types in 0\.2\.0"):
        mp.types  # noqa: B018


@pytest.mark.parametrize(("typed", "meant"), [("SGD", "sgd"), ("hypergradients", "hypergradient"), ("unrol", "unroll")])
def test_a_name_that_is_nearly_right(typed, meant):
    with pytest.raises(AttributeError, match=f"no attribute '{typed}': did you mean '{meant}'"):
        getattr(mp, typed)
