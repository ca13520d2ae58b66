"""The build-time part of the documentation: where the sources are, and what is made from the code.

A page asks for a table by a line such as `<!-- table: flags -->`; see `TABLES` for the names. It asks for the reference
of a package by `<!-- reference: metapl.core -->`, and for a program by `<!-- program: examples/maml.py -->`; a link on
the same line gives way to it. The build fails where a public name is in no page.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority

from metapl.data.augment.presets import VIEWS
from metapl.data.sources import SOURCES
from metapl.estimators import ESTIMATORS
from metapl.methods.consistency.alignment import ALIGNMENTS
from metapl.methods.consistency.mixing import MIXINGS
from metapl.methods.consistency.target import CONSISTENCY_TARGETS
from metapl.methods.consistency.threshold import THRESHOLDS
from metapl.methods.feedback_scale import SIZES
from metapl.methods.imbalance import CLASS_WEIGHTS
from metapl.models import MODELS
from metapl.optim import OPTIMIZERS
from metapl.registry import notation
from metapl.serving.strategies import STRATEGIES
from metapl.training.config import PRESETS, TrainConfig, flag, presets, resolve
from metapl.training.keeping import Keeping

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
MARKER = re.compile(r"(?:\[[^]\n]+\]\([^)\n]+\) )?<!-- (table|reference|program): ([\w./ -]+) -->")
"""With the link before it, which is for whoever reads the page as it is in the repository."""

_folders = ExitStack()


@event_priority(100)  # before mkdocstrings reads its own configuration
def on_config(config: MkDocsConfig) -> None:
    """Lay the sources out as they are installed, so that `metapl.models` is found whatever the kind of install."""
    target = Path(_folders.enter_context(tempfile.TemporaryDirectory(prefix="metapl-docs-")))
    lay_out(target)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [str(target)]


def on_shutdown() -> None:
    """Remove what was laid out."""
    _folders.close()


def lay_out(target: Path) -> None:
    """Copy every package to the place that `[tool.setuptools.package-dir]` gives it."""
    for package, folder in sorted(SETUPTOOLS["package-dir"].items()):
        place = target / package.replace(".", "/")
        shutil.copytree(ROOT / folder, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put in what a page asks for."""
    made = {"table": lambda name: TABLES[name](), "reference": reference, "program": program}
    return MARKER.sub(lambda match: made[match[1]](match[2]), markdown)


def program(path: str) -> str:
    """A program of the repository, as it stands there."""
    return f'```python title="{path}"\n{(ROOT / path).read_text(encoding="utf-8")}```'


def on_post_build(config: MkDocsConfig) -> None:
    """Every public name has a place that can be linked to."""
    pages = [page.read_text(encoding="utf-8") for page in (Path(config.site_dir) / "reference").glob("*.html")]
    places = {place for page in pages for place in re.findall(r'id="(metapl[\w.]+)"', page)}
    wanted = {
        f"{module}.{name}"
        for package in SETUPTOOLS["packages"]
        for module in modules(package)
        for name in names(module)
    }
    if wanted - places:
        raise PluginError(f"public names that no page of docs/reference/ shows: {', '.join(sorted(wanted - places))}")


def modules(package: str) -> Iterator[str]:
    """The package and the modules that stand in it, not those of packages inside."""
    yield package
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if not found.ispkg and not found.name.endswith("__main__"):
            yield found.name


def names(module: str) -> list[str]:
    """The public names that a module defines, in the order of its source."""
    found = []
    for statement in ast.parse(inspect.getsource(importlib.import_module(module))).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found.append(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in found if not name.startswith("_")]


def reference(package: str) -> str:
    """What a package is, a table of its modules, and every public name of them."""
    listed = list(modules(package))
    about = {name: (importlib.import_module(name).__doc__ or "").strip().splitlines()[0] for name in listed}
    parts = [directive(package, members=names(package), show_root_heading="false", show_root_toc_entry="false")]
    if len(listed) > 1:
        parts.append(table(["module", ""], [[f"[`{name}`][{name}]", about[name]] for name in listed[1:]]))
    return "\n\n".join([*parts, *(directive(name) for name in listed[1:])])


def directive(name: str, **options: object) -> str:
    """What mkdocstrings replaces by the documentation of a module."""
    lines = [f"::: {name}", *(["    options:"] if options else [])]
    return "\n".join([*lines, *(f"      {key}: {value}" for key, value in options.items())])


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def flags() -> str:
    """Every flag of `metapl train` that is a key of the configuration too."""
    return options(TrainConfig)


def keeping() -> str:
    """The flags of `metapl train` that say how a run is kept."""
    return options(Keeping)


def options(record: type[TrainConfig] | type[Keeping]) -> str:
    """The flags that are made from the fields of a dataclass."""
    rows = []
    for field in fields(record):
        name, default = flag(field.name), field.default
        if isinstance(default, bool):
            name, default = f"{name}`, `--no-{name[2:]}", str(default).lower()
        rows.append([f"`{name}`", f"`{default}`" if default != "" else "", field.metadata["help"]])
    return table(["flag", "default", "meaning"], rows)


def estimators() -> str:
    """The estimators, as `metapl grads` lists them."""
    rows = []
    for name, constructor in ESTIMATORS.items():
        value = constructor()
        rows.append([f"`{notation.signature(name, constructor)}`", value.claim, ", ".join(value.targets), value.cost])
    return table(["as typed, with its defaults", "claim", "labels", "cost beyond the learner's step"], rows)


def estimator_options() -> str:
    """What the options of each estimator mean, from its docstring."""
    rows = []
    for name, constructor in ESTIMATORS.items():
        section = inspect.cleandoc(constructor.__doc__ or "").partition("\nArgs:\n")[2].partition("\n\n")[0]
        entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
        told = {option: " ".join(text.split()) for option, text in entries}
        rows += [[f"`{option}`", f"`{name}`", told[option]] for option in notation.options(constructor)]
    return table(["option", "of", "meaning"], rows)


def registry(constructors: Mapping[str, Callable[..., Any]]) -> Callable[[], str]:
    """The table of one registry: what may be typed, and the first line of its documentation."""

    def build() -> str:
        rows = [
            [f"`{notation.signature(key, constructor)}`", (constructor.__doc__ or "").strip().splitlines()[0]]
            for key, constructor in constructors.items()
        ]
        return table(["as typed, with its defaults", ""], rows)

    return build


def source(preset: str) -> str:
    """The comment at the head of a preset."""
    lines = (PRESETS / f"{preset}.toml").read_text(encoding="utf-8").splitlines()
    return " ".join(line[2:] for line in lines if line.startswith("# "))


def consistency_presets() -> str:
    """The presets of a consistency loss: their rules, and the comment at their head."""
    rows = []
    for name in presets():
        config = resolve({}, None, name)
        if config.method == "uda":
            rules = (config.alignment, config.threshold, config.consistency_target)
            rows.append([f"`{name}`", *(f"`{rule}`" for rule in rules), source(name)])
    return table(["`--preset`", "alignment", "threshold", "target", "source"], rows)


def preset_table() -> str:
    """The presets of whole recipes: what decides their size, and the comment at their head."""
    rows = []
    for name in presets():
        config = resolve({}, None, name)
        if config.method == "uda":
            continue
        size = f"{config.steps:,} steps, {config.labelled_batch:,} + {config.batch:,}"
        rows.append([f"`{name}`", f"`{config.model}`", size, source(name)])
    return table(["`--preset`", "student", "labelled + unlabelled examples a step", "source"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "flags": flags,
    "keeping": keeping,
    "estimators": estimators,
    "estimator options": estimator_options,
    "models": registry(MODELS),
    "data": registry(SOURCES),
    "views": registry(VIEWS),
    "sizes": registry(SIZES),
    "alignments": registry(ALIGNMENTS),
    "thresholds": registry(THRESHOLDS),
    "targets": registry(CONSISTENCY_TARGETS),
    "mixings": registry(MIXINGS),
    "class weights": registry(CLASS_WEIGHTS),
    "consistency presets": consistency_presets,
    "presets": preset_table,
    "optimizers": registry(OPTIMIZERS),
    "strategies": registry(STRATEGIES),
}
