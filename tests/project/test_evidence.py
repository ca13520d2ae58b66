"""`benchmarks/evidence.py`: which published runs came out the same."""

import importlib.util
import json
from pathlib import Path

import pytest

LOCATION = importlib.util.spec_from_file_location("evidence", Path(__file__).parents[2] / "benchmarks" / "evidence.py")
evidence = importlib.util.module_from_spec(LOCATION)
LOCATION.loader.exec_module(evidence)


def run(seed, top1, **more):
    return {"setting": {}, "arm": "none", "seed": seed, "test": {"ema": {"top1": top1, "nll": 1.5, **more}}}


@pytest.fixture
def agreement(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "PAGES", tmp_path)

    def of(published, made):
        (tmp_path / "study").mkdir(exist_ok=True)
        for path, runs in ((tmp_path / "study.jsonl", published), (tmp_path / "study" / "runs.jsonl", made)):
            path.write_text("".join(f"{json.dumps(one)}\n" for one in runs))
        return evidence.agreement("study", tmp_path)

    return of


def test_a_new_measure_is_no_difference(agreement):
    assert agreement([run(0, 0.5)], [run(0, 0.5, macro_f1=0.4)]) == "1 of 1 published runs the same"


@pytest.mark.parametrize("made", [[run(0, 0.5000001)], [run(1, 0.5)], []], ids=["digit", "seed", "gone"])
def test_another_digit_another_seed_or_no_run_is_one(agreement, made):
    assert agreement([run(0, 0.5), run(2, 0.25)], [*made, run(2, 0.25)]) == "1 of 2 published runs the same"


def test_a_measure_that_is_gone_is_a_difference(agreement):
    assert agreement([run(0, 0.5, ece=0.1)], [run(0, 0.5)]) == "0 of 1 published runs the same"


def test_every_study_with_published_runs_has_a_command():
    known = evidence.commands()
    studies = {path.stem for path in evidence.PAGES.glob("*.jsonl") if path.with_suffix(".toml").exists()}
    assert studies <= set(known)
