"""The folder of a study: which one it goes on in, which it refuses, and what is in it at the end."""

import json

import pytest
from study_rows import ABOUT, RUNS, cells

from metapl.registry.errors import InputError
from metapl.studies import folder, specification, tables


def test_a_folder_holds_its_study_and_is_gone_on_in(tmp_path):
    out = tmp_path / "deep" / "out"
    folder.start(out, ABOUT)
    assert specification.read(out / "study.toml") == ABOUT
    assert {"torch", "metapl", "python"} <= set(json.loads((out / "environment.json").read_text()))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    folder.start(out, ABOUT)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / "environment.json").unlink()  # as if it had been killed before it was written
    folder.start(out, ABOUT)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    "change",
    [{"against": "exact"}, {"common": {"lr": 0.3}}, {"over": {"labels": [10]}}, {"arms": {}}],
)
def test_another_study_is_refused(tmp_path, change):
    folder.start(tmp_path / "out", ABOUT)
    with pytest.raises(InputError, match=r"--out .*out holds another study: name another folder"):
        folder.start(tmp_path / "out", ABOUT._replace(**change))
    assert specification.read(tmp_path / "out" / "study.toml") == ABOUT


def test_a_study_goes_on_with_other_pairs(tmp_path):
    folder.start(tmp_path, ABOUT)
    other = ABOUT._replace(pairs=(("late", "exact"),))
    folder.start(tmp_path, other)
    assert specification.read(tmp_path / "study.toml") == other


@pytest.mark.parametrize("seeds", [range(2), range(9)])
def test_a_study_goes_on_with_other_seeds(tmp_path, seeds):
    folder.start(tmp_path, ABOUT)
    folder.start(tmp_path, ABOUT._replace(seeds=seeds))
    assert specification.read(tmp_path / "study.toml") == ABOUT._replace(seeds=seeds)


def test_a_damaged_record_is_told_before_anything_is_trained(tmp_path):
    assert folder.start(tmp_path / "out", ABOUT)["torch"]
    (tmp_path / "out" / "environment.json").write_text('{"torch": ')
    with pytest.raises(InputError, match=r"environment\.json cannot be read .*: remove it"):
        folder.start(tmp_path / "out", ABOUT)


def test_runs_that_diverged_are_named():
    runs = [{**run, "finite": run["arm"] != "exact" or run["seed"] > 1} for run in RUNS]
    names = [row[0] for row in cells(tables.markdown(ABOUT, runs))[0][2:]]
    assert names == ["none", f"exact ({sum(not run['finite'] for run in runs)} diverged)"]


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("precious")
    for out in (tmp_path / "precious", tmp_path / "precious" / "file"):
        with pytest.raises(InputError, match=r"exists and holds no study"):
            folder.start(out, ABOUT)
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["file"]


def test_a_folder_that_another_process_is_just_making(tmp_path):
    """Processes of torchrun all start at the same time, and files are written beside their place first."""
    out = tmp_path / "out"
    out.mkdir()
    (out / ".study.toml.7.tmp.toml").write_text("seeds")
    folder.start(out, ABOUT)
    assert specification.read(out / "study.toml") == ABOUT


def test_what_is_made_of_the_runs(tmp_path):
    folder.finish(tmp_path, ABOUT, RUNS)
    assert (tmp_path / "runs.jsonl").read_text() == folder.lines(RUNS)
    assert (tmp_path / "table.md").read_text() == tables.markdown(ABOUT, RUNS)
    for found, there in zip(
        cells((tmp_path / "validation.md").read_text()), cells(tables.markdown(ABOUT, RUNS)), strict=True
    ):
        assert [row[0] for row in found] == [row[0] for row in there]
        top1 = there[0].index("top-1 %")
        for one, other in zip(found[2:], there[2:], strict=True):
            assert float(one[top1].split()[0]) == pytest.approx(float(other[top1].split()[0]) - 25.0, abs=0.011)
            assert one[top1 + 1 :] == other[top1 + 1 :]


def test_no_table_for_choosing_where_there_is_nothing_to_choose_on(tmp_path):
    folder.finish(tmp_path, ABOUT, [{**run, "validation": {}} for run in RUNS])
    assert (tmp_path / "table.md").exists()
    assert not (tmp_path / "validation.md").exists()
