"""What went where since version 0.1.0: what the imports say, what the page says, and whether it is so."""

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from metapl.registry import moved
from metapl.registry.old_names import GONE, MODULES, NAMES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "what_moved.md").read_text()
OLD = json.loads(Path(__file__).with_name("names_of_0_1_0.json").read_text())
"""Every public module of version 0.1.0 but those of the command line, with its public names."""


def rows(title):
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(metapl[\w.]+)` \| `?(.*?)`? \|$", section, flags=re.MULTILINE)


def holder(name):
    """The module in which a dotted name stands, and the name in it."""
    module, _, last = name.rpartition(".")
    return importlib.import_module(module), last


@pytest.mark.parametrize(("title", "table"), [("Modules", MODULES), ("Names", NAMES), ("Gone", GONE)])
def test_the_page_has_the_table(title, table):
    assert dict(rows(title)) == table
    assert len(rows(title)) == len(table)


@pytest.mark.parametrize("old", MODULES)
def test_the_import_of_an_old_module_says_where_it_went(old):
    with pytest.raises(ImportError) as caught:
        importlib.import_module(old)
    first = next(name for name in (old.rpartition(".")[0], old) if name in MODULES)  # packages come first
    assert str(caught.value).startswith(f"{first} moved to {MODULES[first]} in 0.2.0")
    assert str(caught.value).endswith(", see docs/what_moved.md")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("old", "new"), MODULES.items())
def test_the_new_module_is_there(old, new):
    assert old in OLD, f"version 0.1.0 had no {old}"
    assert importlib.import_module(new).__name__ == new


def test_other_ways_to_import_say_it_too():
    with pytest.raises(
        ImportError, match=r"^metapl\.types moved to metapl\.core\.types in 0\.2\.0 \(.*Learner is TrainS"
    ):
        exec("from metapl import types")
    with pytest.raises(
        ImportError, match=r"^metapl\.data\.augment\.noise moved to metapl\.data\.augment\.base\.noise in"
    ):
        exec("from metapl.data.augment import noise")


def test_what_never_was_is_not_found_as_ever():
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'metapl\.nothing'$"):
        importlib.import_module("metapl.nothing")
    with pytest.raises(ImportError, match=r"^cannot import name 'nothing' from 'metapl'"):
        exec("from metapl import nothing")


def test_what_is_gone_is_said_to_be(monkeypatch):
    monkeypatch.setitem(GONE, "metapl.abacus", "torch counts")
    with pytest.raises(
        ImportError, match=r"^metapl\.abacus is gone in 0\.2\.0: torch counts, see docs/what_moved\.md$"
    ):
        importlib.import_module("metapl.abacus")


def test_a_line_names_a_few_of_many(monkeypatch):
    for letter in "abcdef":
        monkeypatch.setitem(NAMES, f"metapl.tree.{letter}", f"metapl.core.tree.{letter}{letter}")
    monkeypatch.setitem(NAMES, "metapl.tree.a", "metapl.core.rng.a")
    assert moved.line("metapl.tree") == (
        "metapl.tree moved to metapl.core.tree in 0.2.0 (a is metapl.core.rng.a, b is bb, c is cc, d is dd, …), "
        "see docs/what_moved.md"
    )


@pytest.mark.parametrize("module", OLD)
def test_every_name_of_version_0_1_0_is_where_the_page_says(module):
    lost = []
    for name in OLD[module]:
        if module in GONE or f"{module}.{name}" in GONE:
            continue
        place = NAMES.get(f"{module}.{name}", f"{MODULES.get(module, module)}.{name}")
        found, last = holder(place)
        if not hasattr(found, last):
            lost.append(place)
    assert lost == [], f"of {module}, not in metapl.registry.old_names"


def test_the_tables_are_about_version_0_1_0():
    for name in [*NAMES, *GONE]:
        module, _, last = name.rpartition(".")
        assert name in OLD or last in OLD[module], name
    assert set(MODULES) <= set(OLD)


def test_what_is_gone_is_nowhere():
    for name in GONE:
        module, _, last = name.rpartition(".")
        if module in OLD and importlib.util.find_spec(place := MODULES.get(module, module)):
            assert not hasattr(importlib.import_module(place), last), name


def test_nothing_names_an_old_place():
    """In code, examples and pages; version 0.1.0's own section of the changelog, and the tables, may."""
    tops = "|".join(name.split(".")[1] for name in MODULES if name.count(".") == 1)
    old = re.compile(rf"from metapl import [\w, ]*\b({tops})\b|(?<![\w.])metapl\.({tops})\b(?!\.(png|md|toml)\b)")
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for folder in ("metapl", "cli", "models", "benchmarks", "docs"):
        files += [file for ending in ("py", "md", "toml", "html") for file in (ROOT / folder).rglob(f"*.{ending}")]
    files = [file for file in files if file.name not in ("moved.py", "old_names.py", "what_moved.md")]
    found = [f"{file}: {match[0]}" for file in files for match in old.finditer(file.read_text())]
    assert found == []


def test_the_finder_is_there_once():
    moved.install()
    assert sum(one is moved._Finder for one in sys.meta_path) == 1


def test_to_import_the_package_costs_nothing():
    """No torch, no numpy, and nothing of metapl but the list of what moved."""
    code = (
        "import sys, metapl; print(*sorted(n for n in sys.modules if n.split('.')[0] in ('metapl', 'torch', 'numpy')))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.split() == ["metapl", "metapl.registry", "metapl.registry.moved", "metapl.registry.old_names"]
