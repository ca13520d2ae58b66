"""The page about a run: its form, its sections, runs that are not what they were, the verb."""

import contextlib
import io
import itertools
import json
import re
from dataclasses import fields
from functools import partial
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from markup import cells, parse, pictures
from paced import quick_and_slow
from reports import EVIL, ROWS, RUNS, finished, reading

from metapl.cli import report as verb
from metapl.registry.errors import InputError
from metapl.reporting import facts, head, mistakes, names, render, report
from metapl.reporting.blocks import Paragraph
from metapl.training.config import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return partial(finished, tmp_path_factory)


# ---------------------------------------------------------------- the page


@pytest.mark.parametrize("name", quick_and_slow(RUNS, ["uda", "supervised"]))
def test_a_page_is_whole_and_asks_for_nothing(made, name):
    """That it opens and closes is asserted by `parse`."""
    page, source = made(name).page, made(name).html
    assert source.startswith("<!DOCTYPE html>\n<html lang=")
    assert [one.name for one in page.all("meta")] == ["meta"] * 4
    assert next(page.all("meta")).attributes == {"charset": "utf-8"}
    ids = [one.attributes["id"] for one in page.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)|labelledby="([^"]+)"', source)
    assert {one for found in wanted for one in found if one} == set(ids)
    assert not re.findall(r"\w+://", unquote(source))
    for picture in itertools.chain(*pictures(page).values()):
        assert all(one.startswith("#") for one in re.findall(r'(?:href|src)="([^"]*)"', picture))
        assert not re.findall(r"@import|url\((?!#)|<script|<image", picture)
    assert not re.findall(r"@import|url\((?!#)", source)
    assert not list(page.all("script"))
    for one in page.all():
        assert not [key for key in one.attributes if key.startswith("on")]
        for key in ("src", "href"):
            assert one.attributes.get(key, "#")[:1] == "#" or one.attributes[key].startswith("data:image/")


@pytest.mark.parametrize("name", quick_and_slow(RUNS, ["uda", "supervised"]))
def test_a_page_can_be_read_without_seeing_it(made, name):
    page = made(name).page
    levels = [int(one.name[1]) for one in page.all() if re.fullmatch("h[1-6]", one.name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(one.attributes["alt"] for one in page.all("img"))
    assert not list(page.all("svg"))
    assert all(pictures(page))
    assert all(one.attributes["scope"] in ("row", "col") for one in page.all("th") if "colspan" not in one.attributes)


SECTIONS = ["Results", "Training", "Calibration", "Classes", "Mistakes", "Split", "Configuration"]
FIGURES = {
    "mpl": ["Test accuracy", "Losses", "Validation accuracy", "Pseudo labels", "Size of the feedback"],
    "uda": ["Test accuracy", "Losses"],
    "reduced": ["Test accuracy", "Losses", "Validation accuracy", "Pseudo labels", "Size of the feedback"],
    "pseudo-labels": ["Test accuracy", "Losses", "Validation accuracy"],
    "supervised": ["Test accuracy", "Losses", "Validation accuracy"],
}


@pytest.mark.parametrize("name", quick_and_slow(RUNS, ["uda", "supervised"]))
def test_sections_and_figures_of_every_method(made, name):
    page = made(name).page
    assert [one.text for one in page.all("h2")] == SECTIONS
    found = [one.one("h3").text for one in page.all("figure")]
    assert [one for one in found if "ECE" not in one and one != "Where they are"] == FIGURES[name]
    assert found.count("Where they are") == (name == "reduced")
    assert sum("ECE" in one for one in found) == (name != "supervised") + 1


def test_texts_of_the_data_stay_texts(made):
    page = made("mpl").page
    assert [row[0] for row in cells(page, "recall and precision by class")[1:]] == list(EVIL)
    assert [row[0] for row in cells(page, "examples by class")[1:-1]] == list(EVIL)
    assert [one.text for one in page.all("p", class_="run")] == [f"Run {made('mpl').folder}"]
    assert "colour <b> = " in made("supervised").page.text


def test_the_same_run_gives_the_same_page(made):
    one = made("reduced")
    with reading(one.data):
        assert report(one.folder, "cpu") == one.html


# ---------------------------------------------------------------- split, configuration


@pytest.mark.parametrize("name", quick_and_slow(RUNS, ["uda", "supervised"]))
def test_the_split(made, name):
    one = made(name)
    saved = json.loads((one.folder / "split.json").read_text())
    unlabelled = np.concatenate([np.arange(first, last + 1) for first, last in saved["unlabelled"]])
    y, count = one.data.y.numpy(), one.data.classes
    parts = [y[saved["labelled"]], y[np.array(saved["validation"], dtype=int)], y[unlabelled], one.y]
    found = cells(one.page, "examples by class")[1:]
    assert [row[0] for row in found if row[0] not in one.data.form.classes] == ["class unknown", "all"][
        name != "pseudo-labels" :
    ]
    for label in range(count):
        assert found[label][1:] == [str((part == label).sum()) for part in parts]
    assert found[-1][1:] == [f"{len(part):,}" for part in parts]
    among = "All labelled examples are" if set(saved["labelled"]) <= set(unlabelled) else "None of the labelled"
    assert among in one.page.one("section", id="split").text


def test_the_configuration(made):
    one = made("mpl")
    default = {field.name: field.default for field in fields(TrainConfig)}
    changed = [row[0] for row in cells(one.page, "options that differ from their defaults")[1:]]
    assert changed == [name for name, value in one.summary["config"].items() if value != default[name]]
    every = {row[0]: row[1] for row in cells(one.page, "all options")[1:]}
    assert set(every) == set(default)
    assert [every["steps"], every["device"], every["balanced"], every["split"]] == ["4", "cpu", "true", "none"]


def test_networks_are_called_what_the_command_line_calls_them():
    assert {name: text for name, (text, _) in names.NETWORKS.items()} == ROWS
    assert list(names.NETWORKS) == list(ROWS)


# ---------------------------------------------------------------- runs that are not what they were


def gathered(one, y):
    """The facts of a run whose test set has other classes now."""
    with reading(one.data._replace(y_test=y)):
        return facts.gather(one.folder, "cpu")


def test_data_that_has_changed_is_told(made):
    one = made("reduced")
    assert not list(one.page.all("p", class_="warning"))
    changed = parse(render.page(head.head(gathered(one, 1 - one.data.y_test)), []))
    assert "changed" in changed.one("p", class_="warning").text


def test_a_test_without_mistakes(made):
    one = made("reduced")
    y = torch.from_numpy(one.probabilities().argmax(-1))
    assert mistakes.mistakes(gathered(one, y)).blocks == [Paragraph("None of the 1,200 test examples is wrong.")]
    y[7] = 1 - y[7]
    assert mistakes.mistakes(gathered(one, y)).blocks[0].text == "1 of 1,200 test examples is wrong, surest first."


@pytest.mark.parametrize("file", ["summary.json", "environment.json", "metrics.jsonl", "checkpoints/final.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_an_incomplete_run(made, file, damage, tmp_path):
    one = made("reduced")
    folder = tmp_path / "run"
    for source in one.folder.rglob("*"):
        if source.is_file():
            place = folder / source.relative_to(one.folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(source.read_bytes())
    if damage == "gone":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes((folder / file).read_bytes()[:-9])
    with (
        reading(one.data),
        pytest.raises(InputError, match="cannot be read") as caught,
    ):
        report(folder, "cpu")
    assert "\n" not in str(caught.value)


def test_no_run(tmp_path):
    with pytest.raises(InputError, match="is not a run"):
        report(tmp_path)


# ---------------------------------------------------------------- the verb


def written(one, **options):
    out = io.StringIO()
    with reading(one.data), contextlib.redirect_stdout(out):
        verb.report(one.folder, device="cpu", **options)
    return out.getvalue()


def test_the_page_is_written_into_the_run(made):
    one = made("mpl")
    said = written(one)
    file = one.folder / "report.html"
    assert file.read_bytes() == one.html.encode()
    assert said.strip().endswith(f"{file} ({len(file.read_bytes()) / 1000:.0f} kB)")
    file.unlink()


def test_the_page_is_written_where_one_says(made, tmp_path):
    written(made("supervised"), out=tmp_path / "new" / "page.htm")
    assert (tmp_path / "new" / "page.htm").read_text(encoding="utf-8") == made("supervised").html


@pytest.mark.parametrize("out", ["page.txt", "folder.html"])
def test_places_that_are_no_page(made, tmp_path, out):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InputError, match="must be a file that ends in"):
        verb.report(made("supervised").folder, out=tmp_path / out)
