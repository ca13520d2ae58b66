"""The studies of the documentation: every run that its file asks for is there, and the pages say what the runs say."""

import json
from pathlib import Path

import pytest

from metapl.studies import results, specification, tables

RESULTS = Path(__file__).parents[2] / "docs" / "results"
STUDIES = sorted(path.stem for path in RESULTS.glob("*.jsonl") if path.with_suffix(".toml").exists())


def load(name):
    runs = [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text().splitlines()]
    return specification.read(RESULTS / f"{name}.toml"), runs


def test_there_are_studies():
    assert len(STUDIES) >= 5


@pytest.mark.parametrize("name", STUDIES)
def test_all_runs_are_there_and_no_others(name):
    about, runs = load(name)
    wanted = [(dict(job.condition), job.arm, job.config.seed) for job in specification.jobs(about)]
    found = [(run["setting"], run["arm"], run["seed"]) for run in runs]
    assert sorted(map(str, found)) == sorted(map(str, wanted))


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_has_every_difference_and_its_command(name):
    about, runs = load(name)
    texts = [text for page in RESULTS.glob("*.md") if f"{name}.jsonl" in (text := page.read_text())]
    text = "\n".join(texts).replace("**", "")
    assert f"metapl ablate docs/results/{name}.toml" in text
    for row in results.rows(about, runs):
        if row.difference:
            assert tables.points(row.difference) in text, (name, row.condition, row.arm)
    for pair in results.pairs(about, runs):
        assert tables.points(pair.difference) in text, (name, pair)
