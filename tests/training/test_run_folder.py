"""A run folder later and elsewhere: other data is told, another directory does not matter, names stay letters."""

import csv
import io
import json
import math
import re
import shutil

import pytest
from command import invoke

from metapl.training import run_files, run_folder
from metapl.training.config import TrainConfig

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

FLAGS = ("--steps", "4", "--finetune-steps", "1", "--no-baselines", "--model", "mlp:width=8", "--device", "cpu")
CLASSES = ("=1+1", "a`b|c``\x1b[31m")


def rows(labels=CLASSES, first=0):
    return [[(7 * n + first) % 13, (5 * n) % 11, labels[n % 2]] for n in range(40)]


def write(place, lines):
    with place.open("w", newline="") as file:
        csv.writer(file).writerows([["+a", "b", "label"], *lines])


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a table, and a run that was trained from it with a relative path."""
    folder = tmp_path_factory.mktemp("here")
    write(folder / "t.csv", rows())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert invoke("train", "--data", "t.csv:label=label", *FLAGS, "--out", "run").code == 0
    return folder


def test_a_relative_path_of_data_is_found_from_elsewhere(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = invoke("eval", here / "run", "--json", tmp_path / "m.json")
    assert (found.code, found.err) == (0, "")
    then = json.loads((here / "run" / "summary.json").read_text())
    assert json.loads((tmp_path / "m.json").read_text()) == then["test"]
    assert then["config"]["data"] == f"{here}/t.csv:label=label"
    assert run_folder.config(here / "run").data == f"{here}/t.csv:label=label"
    again = invoke("train", "--config", here / "run" / "config.toml", "--seed", "1", "--out", tmp_path / "again")
    assert again.code == 0


def test_a_run_of_an_older_version_is_read(here, tmp_path):
    """Its configuration lacks the fields of today, which then are what that version did."""
    shutil.copytree(here / "run", tmp_path / "run")
    place = tmp_path / "run" / "config.toml"
    lines = place.read_text().splitlines(keepends=True)
    place.write_text("".join(line for line in lines if not line.startswith("finetune_optimizer")))
    assert len(place.read_text().splitlines()) == len(lines) - 1
    assert run_folder.config(tmp_path / "run") == run_folder.config(here / "run")
    assert invoke("eval", tmp_path / "run").code == 0


def test_a_run_from_before_the_guide_has_none(here, tmp_path):
    shutil.copytree(here / "run", tmp_path / "run")
    place = tmp_path / "run" / "config.toml"
    lines = place.read_text().splitlines(keepends=True)
    place.write_text("".join(line for line in lines if not line.startswith(("guide", "alignment"))))
    found = run_folder.config(tmp_path / "run")
    assert (found.guide, found.alignment) == ("none", "none")
    assert run_folder.load(tmp_path / "run", "cpu")[0].config.guide == "none"
    assert run_folder.config(here / "run").guide == "consensus"


@pytest.mark.parametrize("data", ["digits", "moons:points=100", "~/t.csv", "/abs/t.csv"])
def test_what_is_no_relative_path_stays(data):
    config = TrainConfig(data=data, data_dir="~/sets")
    assert run_folder._from_anywhere(config) == config


def test_data_that_was_replaced_is_told(here, tmp_path):
    before = (here / "t.csv").read_bytes()
    try:
        lines = rows()
        lines[5][0] += 1
        write(here / "t.csv", lines)
        found = invoke("eval", here / "run")
        assert found.code == 0
        (line,) = found.err.splitlines()
        assert re.fullmatch(rf"metapl: {here}/t\.csv:label=label is not what {here}/run was trained on: .*", line)
        assert "examples of the" in line
        write(here / "t.csv", rows(CLASSES[::-1]))
        assert "labels of the" in invoke("eval", here / "run").err
        write(here / "t.csv", rows()[:-4])
        assert invoke("eval", here / "run").code == 2  # the split is of more rows
    finally:
        (here / "t.csv").write_bytes(before)
    assert invoke("eval", here / "run").err == ""


def test_cells_that_a_spreadsheet_would_run(here, tmp_path):
    write(tmp_path / "new.csv", [[-1.5, 3, "=1+1"], ["-2", "+4", "a`b|c``\x1b[31m"]])
    assert invoke("predict", here / "run", tmp_path / "new.csv", "--out", tmp_path / "p.csv").code == 0
    with (tmp_path / "p.csv").open(newline="") as file:
        head, *found = csv.reader(file)
    assert head[:4] == ["'+a", "b", "label", "prediction"]
    assert [row[:2] for row in found] == [["-1.5", "3"], ["-2", "+4"]]
    assert [row[2] for row in found] == ["'=1+1", CLASSES[1]]
    assert {row[3] for row in found} <= {"'=1+1", CLASSES[1]}
    assert not any(cell.startswith(("=", "@", "\t", "\r")) for row in [head, *found] for cell in row)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_is_shown_what_a_file_holds(here, tmp_path, monkeypatch):
    """In a file the bytes are those of the data; a terminal would obey them."""
    write(tmp_path / "new.csv", rows()[:2])
    assert "\x1b[31m" in invoke("predict", here / "run", tmp_path / "new.csv").out
    monkeypatch.setattr(io, "StringIO", Terminal)
    shown = invoke("predict", here / "run", tmp_path / "new.csv").out
    assert "\x1b" not in shown
    assert r"a`b|c``\x1b[31m" in shown
    assert len(shown.splitlines()) == 3


def test_names_in_the_card_and_in_the_page(here, tmp_path):
    assert invoke("export", here / "run", "--out", tmp_path / "m").code == 0
    card = (tmp_path / "m" / "README.md").read_text()
    assert "Its 2 classes: `=1+1`, ```a`b\\|c``\\x1b[31m```." in card
    assert "\x1b" not in card
    assert invoke("report", here / "run", "--out", tmp_path / "r.html").code == 0
    page = (tmp_path / "r.html").read_text()
    assert "\x1b" not in page
    assert r"a`b|c``\x1b[31m" in page


def test_names_on_the_terminal(here):
    found = invoke("data", "check", here / "t.csv")
    assert found.code == 0
    assert "\x1b" not in found.out
    assert r"a`b|c``\x1b[31m" in found.out
    refused = invoke("train", "--data", "\x1b]0;title\x07", "--out", here / "no")
    assert (refused.code, "\x1b" in refused.err, r"\x1b]0;title\x07" in refused.err) == (2, False, True)


def test_a_path_with_a_byte_that_toml_forbids(here, tmp_path):
    (tmp_path / "d\x7f").mkdir()
    shutil.copy(here / "t.csv", tmp_path / "d\x7f" / "t.csv")
    assert invoke("train", "--data", tmp_path / "d\x7f" / "t.csv", *FLAGS, "--out", tmp_path / "run").code == 0
    assert invoke("eval", tmp_path / "run").code == 0


def test_a_path_that_no_file_can_hold_is_refused_before_training(tmp_path):
    found = invoke("train", "--data", tmp_path / "d\udce9" / "t.csv", *FLAGS, "--out", tmp_path / "run")
    assert (found.code, found.out) == (2, "")
    assert r"d\udce9/t.csv cannot be written as UTF-8" in found.err
    assert not (tmp_path / "run").exists()


def test_a_prior_in_a_file_means_the_same_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_folder._from_anywhere(TrainConfig(prior="p.json")).prior == str(tmp_path / "p.json")
    assert run_folder._from_anywhere(TrainConfig(prior="/p.json")).prior == "/p.json"
    names = ["estimated", "uniform", "labelled"]
    assert [run_folder._from_anywhere(TrainConfig(prior=name)).prior for name in names] == names


def test_a_summary_of_an_earlier_version_is_read(tmp_path):
    """What it lacks is unknown."""
    row = {"top1": 0.5, "nll": 1.0, "ece": 0.25}
    new = {**row, "top5": 0.75, "balanced": 0.4, "macro_f1": 0.3}
    rest = {"validation": {}, "config": {}, "pseudo_labels": "soft", "seed": 0, "steps": 1, "seconds": 1.0}
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"test": {"ema": row, "uda": new}, **rest, "peak_memory_bytes": 1}))
    found = run_files.summary(path)["test"]
    assert {name: value for name, value in found["ema"].items() if not math.isnan(value)} == row
    assert set(found["ema"]) == set(found["uda"]) == set(new)
    assert found["uda"] == new
