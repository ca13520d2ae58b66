"""What is installed, and under which names."""

import ast
import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import metapl

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TREES = {"metapl": "metapl", "cli": "metapl.cli", "models": "metapl.models"}


def packages():
    """Every folder with an `__init__.py`, by the name that it is installed under."""
    found = {}
    for folder, name in TREES.items():
        for file in (ROOT / folder).rglob("__init__.py"):
            below = file.parent.relative_to(ROOT / folder).parts
            found[".".join([name, *below])] = file.parent
    return found


def modules():
    files = [(name, file) for name, folder in packages().items() for file in folder.glob("*.py")]
    return sorted(name if file.stem == "__init__" else f"{name}.{file.stem}" for name, file in files)


def isolated(code):
    """Run code by the interpreter of this environment, seeing what is installed in it and nothing else."""
    command = [sys.executable, "-I", "-P", "-c", code]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=300, check=False)


def test_every_folder_of_the_package_is_listed():
    """Setuptools installs what is listed and silently leaves out the rest."""
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages())
    assert len(listed) == len(set(listed))


def test_folders_that_stand_elsewhere_are_mapped():
    mapped = PROJECT["tool"]["setuptools"]["package-dir"]
    assert mapped == {name: folder for folder, name in TREES.items()}


def test_no_python_file_lies_outside_a_package():
    folders = set(packages().values())
    assert [file for tree in TREES for file in (ROOT / tree).rglob("*.py") if file.parent not in folders] == []


@pytest.mark.parametrize("name", ["cli", "models"])
def test_no_general_name_is_taken(name):
    found = isolated(
        f"import importlib.util as u; print(u.find_spec({name!r}), u.find_spec('metapl.{name}') is not None)"
    )
    assert (found.stdout.strip(), found.stderr) == ("None True", "")


@pytest.mark.parametrize("name", modules())
def test_every_module_imports(name):
    importlib.import_module(name)


def test_types_are_declared():
    assert (Path(metapl.__file__).parent / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["metapl"]


def test_one_version():
    assert metapl.__version__ == PROJECT["project"]["version"] == importlib.metadata.version("metapl")
    assert f"\nversion: {metapl.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {metapl.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_command_is_installed():
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="metapl")
    assert command.load() is importlib.import_module("metapl.cli.main").main


READERS = ("read_text", "write_text", "open")
OTHERS = ("os", "tarfile", "zipfile", "gzip", "Image", "archive", "storage", "checkpoint", "urllib.request", "fetch")
"""Whose functions of these names take no encoding, or see to it."""


def _without_encoding(file):
    """The lines on which text is read or written in whatever encoding the locale has."""
    for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        modes = [one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        binary = name == "open" and any("b" in mode for mode in modes)
        given = any(one.arg == "encoding" for one in call.keywords)
        if name in READERS and owner not in OTHERS and not given and not binary:
            yield call.lineno


def test_every_text_is_utf8_whatever_the_locale():
    folders = [*TREES, "benchmarks", "docs", "examples"]
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    found = [f"{file.relative_to(ROOT)}:{line}" for file in files for line in _without_encoding(file)]
    assert [
        one for one in found if not one.startswith(("metapl/files/storage.py", "metapl/data/sources/fetch.py"))
    ] == []
