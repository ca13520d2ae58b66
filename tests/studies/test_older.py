"""A study that an older version began goes on as it was begun."""

import json

import pytest
from command import assert_one_line, invoke
from executions import TINY, contents, jobs_of, run

from metapl.studies import older, specification

# Of version 0.1.0; its runs have no other fields than these and those of `TINY` that matter here.
THEN = {"method": "mpl", "grad": "exact", "guide": "none", "alignment": "none", "clip": 5.0, "embed": "none"}
OPEN = {key: value for key, value in TINY.items() if key not in THEN}
ADDED = ("guide", "guide_weight", "alignment", "threshold", "exam", "freeze", "from_", "embed")


@pytest.fixture(scope="module")
def explicit(tmp_path_factory):
    """The folder of the runs of a study that says all of it."""
    folder = tmp_path_factory.mktemp("explicit")
    run(jobs_of({"a": {}, "b": {"lr": 0.3}}, seeds=1, **THEN), folder)
    return folder


@pytest.fixture
def begun(explicit, tmp_path):
    """A study that says nothing of it, and its folder with the one run that the older version made."""
    about = specification.build({"common": OPEN, "arms": {"a": {}, "b": {"lr": 0.3}}, "seeds": 1}, "here")
    out = tmp_path / "study"
    (out / "runs").mkdir(parents=True)
    (out / "study.toml").write_text(specification.dump(about))
    found = json.loads((explicit / "a-seed=0.json").read_text())
    for name in ADDED:
        del found["config"][name]
    (out / "runs" / "a-seed=0.json").write_text(json.dumps(found))
    return about, out


def test_it_goes_on_with_the_defaults_of_then(explicit, begun):
    """Both runs are one population, which is made whole again."""
    _, out = begun
    done = invoke("ablate", out / "study.toml", "--out", out)
    assert done.code == 0, done.err
    assert "1 of them done before" in done.out
    assert contents(out / "runs") == contents(explicit)
    assert json.loads((out / "runs" / "b-seed=0.json").read_text())["config"]["clip"] == 5.0


def test_of_a_later_version_only_what_it_lacks_is_as_it_was(explicit, begun):
    """Its runs had a guide to say, and none of what photographs become."""
    about, out = begun
    found = json.loads((explicit / "a-seed=0.json").read_text())
    del found["config"]["embed"]
    (out / "runs" / "a-seed=0.json").write_text(json.dumps(found))
    assert older.as_begun(about, out / "runs").common == {**OPEN, "embed": "none"}


def test_what_the_study_says_counts(begun):
    about, out = begun
    said = about._replace(common={**OPEN, "clip": 0.5, "guide": "consensus"})
    found = older.as_begun(said, out / "runs").common
    assert (found["clip"], found["guide"], found["method"], found["model"]) == (0.5, "consensus", "mpl", TINY["model"])


def test_with_other_values_it_is_another_study(begun):
    _, out = begun
    assert_one_line(invoke("ablate", out / "study.toml", "--clip", 0.5, "--out", out), "another study")


def test_the_values_are_not_those_of_the_file(begun):
    """It may come from a stranger, and name code."""
    about, out = begun
    path = out / "runs" / "a-seed=0.json"
    found = json.loads(path.read_text())
    found["config"] |= {"grad": "somebody:estimator", "clip": 3.0}
    path.write_text(json.dumps(found))
    assert {key: older.as_begun(about, out / "runs").common[key] for key in THEN} == THEN


@pytest.mark.parametrize("text", ["", "[]", '{"config": 3}', "{", "\xff"])
def test_a_folder_without_a_run_of_an_older_version(explicit, begun, tmp_path, text):
    about, _ = begun
    assert older.as_begun(about, explicit) is about
    assert older.as_begun(about, tmp_path / "nowhere") is about
    (tmp_path / "a-seed=0.json").write_text(text, encoding="latin1")
    assert older.as_begun(about, tmp_path) is about
