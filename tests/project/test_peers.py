"""The page about other libraries: every script has a row, and what can be run here still gives its figures."""

import importlib.util
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "benchmarks" / "peers"
PAGE = ROOT / "docs" / "results" / "peers.md"
SCRIPTS = sorted(path.name for path in PEERS.glob("*.py") if path.name not in ("common.py", "run.py"))
RECORDS = [json.loads(line) for line in PAGE.with_suffix(".jsonl").read_text().splitlines()]


def load(name):
    location = importlib.util.spec_from_file_location(f"peers_{name}", PEERS / f"{name}.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


common = load("common")


def same(one, other):
    """Two figures agree; JSON holds NaN as a string, and None stands for a peer that raised."""
    if one is None or other is None or "NaN" in (one, other):
        return one == other
    return common.close(one, other)


def test_every_script_has_a_record_and_every_record_a_script():
    assert [record["script"] for record in RECORDS] == SCRIPTS


def test_the_page_shows_the_records():
    page = PAGE.read_text()
    for table in load("run").tables(RECORDS):
        assert table in page, "docs/results/peers.md is not what benchmarks/peers/run.py prints"
    assert sorted(re.findall(r"`(\w+\.py)` \|$", page, flags=re.MULTILINE)) == SCRIPTS


def test_the_page_names_the_versions():
    page = PAGE.read_text()
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", (PEERS / "requirements.txt").read_text(), flags=re.MULTILINE))
    pins |= dict(re.findall(r"^(torch)==(\S+)", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    for record in RECORDS:
        peer, used = record["peer"], record["version"].partition("+")[0]
        if peer in pins:
            assert used == pins[peer]
        assert used.partition(",")[0] in page
        assert record["python"] in page
        assert record["torch"].partition("+")[0] == pins["torch"]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["script"])
def test_a_recorded_verdict_follows_from_its_figures(record):
    if record["metapl"] is not None:
        assert same(record["metapl"], record["expected"])
    if record["found"] is None:
        assert record["verdict"] == "raises"
        assert record["error"]
    else:
        assert record["verdict"] == ("right" if same(record["found"], record["expected"]) else "wrong")


@pytest.mark.filterwarnings("ignore")  # the peers' own
@pytest.mark.parametrize(
    "record",
    [record for record in RECORDS if record["script"].startswith(("higher_", "torch_", "mpl_"))],
    ids=lambda record: record["script"],
)
def test_a_figure_is_found_again(record, capsys, monkeypatch):
    """The rows that need no other package than those that metapl needs."""
    if record["peer"] == "torch" and record["version"].partition("+")[0] != torch.__version__.partition("+")[0]:
        pytest.skip(f"recorded with torch {record['version']}")
    monkeypatch.syspath_prepend(PEERS)
    monkeypatch.setitem(sys.modules, "common", common)
    runpy.run_path(str(PEERS / record["script"]), run_name="__main__")
    (line,) = capsys.readouterr().out.splitlines()
    again = json.loads(line)
    for key in ("peer", "what", "quantity", "verdict"):
        assert again[key] == record[key]
    for key in ("found", "expected", "metapl"):
        assert same(again[key], record[key]), f"{key} is {again[key]}, recorded {record[key]}"


def test_a_missing_peer_is_named(capsys):
    with pytest.raises(SystemExit) as stop:
        common.load("no_such_module", "no-such-package")
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "no-such-package" in said.err


def test_a_verdict_is_computed():
    given = {"expected": 1.0, "of": "0"}
    verdicts = [
        common.row("x", "what", "quantity", found=found, **given)["verdict"]
        for found in (1.0, 1.0 + 1e-9, 1.0 + 1e-5, -1.0, float("nan"), RuntimeError("no"))
    ]
    assert verdicts == ["right", "right", "wrong", "wrong", "wrong", "raises"]
