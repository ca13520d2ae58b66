"""The documentation is true: its code runs, its links lead somewhere, and every public name is in it."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from metapl.training.config import TrainConfig, flag

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```python(?P<about>[^\n]*)\n(?P<code>.*?)^```$", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)(?P<path>[^)#]*)(?P<anchor>#[^)]*)?\)")


def packages():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]


def modules():
    """Every module of every package; `metapl.__path__` alone leads past `cli/` and `models/`."""
    for package in packages():
        yield package
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if not found.ispkg:
                yield f"{package}.{found.name}"


def pages():
    return sorted([ROOT / "README.md", *DOCS.rglob("*.md")])


def blocks(path):
    """The code of a page: each block with its line; blocks titled "fragment …" are for reading only."""
    text = path.read_text()
    for match in FENCE.finditer(text):
        if "fragment" not in match["about"]:
            yield text.count("\n", 0, match.start("code")), match["code"]


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in pages() if any(blocks(path))], ids=relative)
def test_the_code_of_a_page_runs(path):
    """All blocks of a page in order and in one namespace, as a reader would type them."""
    namespace = {"__name__": "__main__"}
    for line, code in blocks(path):
        exec(compile("\n" * line + code, str(path), "exec"), namespace)


@pytest.mark.parametrize("name", list(modules()))
def test_the_examples_of_a_module_run(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert not failed, f"{failed} examples of {name} give something else"


def test_examples_are_found():
    """Doctest is silent about a module without examples, and would be about a wrong list of modules."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {name for name in modules() if any(t.examples for t in finder.find(importlib.import_module(name)))}
    assert {
        "metapl",
        "metapl.core.tree",
        "metapl.core.rng",
        "metapl.nn.functional",
        "metapl.optim",
        "metapl.data.augment.base",
    } <= found


@pytest.mark.parametrize("path", pages(), ids=relative)
def test_links_lead_to_files(path):
    for match in LINK.finditer(path.read_text()):
        target = (path.parent / match["path"]) if match["path"] else path
        assert target.exists(), f"{relative(path)} links to {match['path']}"


def hooks():
    pytest.importorskip("mkdocs", reason="needs the docs extra")
    location = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


def test_everything_that_a_page_asks_for_is_made():
    made = hooks()
    for path in DOCS.rglob("*.md"):
        page = made.on_page_markdown(path.read_text())
        assert "<!-- " not in page, f"{relative(path)} asks for something that docs/hooks.py does not make"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The package as mkdocstrings reads it: from the sources, without an import."""
    griffe = pytest.importorskip("griffe", reason="needs the docs extra")
    folder = tmp_path_factory.mktemp("sources")
    hooks().lay_out(folder)
    return griffe.load("metapl", search_paths=[folder], try_relative_path=False)


def public(sources, name):
    """What a module defines under public names; what it imports is public where it comes from."""
    module = sources[name.removeprefix("metapl.")] if name != "metapl" else sources
    return [one for one in module.members.values() if not (one.is_alias or one.is_module or one.name.startswith("_"))]


def test_every_public_name_is_in_the_reference(sources):
    """Each module is asked for once, with all that it defines; the build checks that every name gets a place."""
    made = hooks()
    pages = "\n".join(made.on_page_markdown(page.read_text()) for page in (DOCS / "reference").glob("*.md"))
    asked = re.findall(r"^::: (metapl[\w.]*)((?:\n    .*)*)", pages, flags=re.MULTILINE)
    assert sorted(name for name, _ in asked) == sorted(set(modules()) - {"metapl", "metapl.__main__"})
    for name, options in asked:
        members = re.search(r"^      members: \[(.*)\]$", options, flags=re.MULTILINE)
        if members:
            assert sorted(re.findall(r"\w+", members[1])) == sorted(one.name for one in public(sources, name)), name


@pytest.mark.parametrize("name", [name for name in modules() if not name.endswith("__main__")])
def test_every_public_name_has_a_docstring(sources, name):
    """Of the command line the flags explain themselves by their help; type variables need no explanation."""
    held = [
        one
        for one in public(sources, name)
        if not (one.is_attribute and (name.startswith("metapl.cli") or re.match("TypeVar|ParamSpec", str(one.value))))
    ]
    assert [one.name for one in held if not one.has_docstring] == []


def test_the_table_of_flags_is_complete():
    made = hooks().flags()
    for field in fields(TrainConfig):
        assert f"`{flag(field.name)}`" in made
        assert field.metadata["help"].replace("|", "\\|") in made


def test_the_sources_are_laid_out_as_they_are_installed(tmp_path):
    hooks().lay_out(tmp_path)
    for name in packages():
        assert (tmp_path / name.replace(".", "/") / "__init__.py").is_file()
    for name in modules():
        assert (tmp_path / f"{name.replace('.', '/')}.py").is_file() or name in packages()
