"""The runs of a study as files: killed and gone on with, damaged, or made by an older version."""

import json
from dataclasses import asdict

import pytest
from asserts import assert_close_tree
from executions import ARMS, LINES, TINY, contents, jobs_of, run

from metapl.files import storage
from metapl.registry.errors import InputError
from metapl.studies import execution, results, specification
from metapl.training import loop, phases, watching
from metapl.training.experiment import prepare

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
STUDY = {"common": TINY, "arms": ARMS, "seeds": 2}


def copy(folder, to, without=()):
    for name, text in contents(folder).items():
        if name.removesuffix(".json") not in without:
            (to / name).write_bytes(text)


PHASES = ["mpl", "finetune"]


def near(found, expected):
    assert_close_tree(found, expected, rtol=1e-4, atol=1e-6)


def test_a_file_a_run(whole):
    jobs, folder = whole
    assert sorted(contents(folder)) == sorted(f"{arm}-seed={seed}.json" for arm in ARMS for seed in (0, 1))
    found = execution.read(jobs, folder)
    assert [(run["arm"], run["seed"], run["config"]) for run in found] == [
        (job.arm, job.config.seed, asdict(job.config)) for job in jobs
    ]
    assert all(run["finite"] is True and run["setting"] == {} for run in found)


def test_a_run_is_what_metapl_train_would_have_trained(whole):
    for job, found in zip(whole[0], execution.read(*whole), strict=True):
        condition = prepare(job.config)
        *events, finished = phases.run(condition)
        log = [watching.look(condition, event) for event in events if isinstance(event, loop.Reported)]
        truth = finished.result
        near(found["test"], truth.test)
        near(found["validation"], truth.validation)
        assert [(line["phase"], line["step"]) for line in log] == LINES
        assert log[1]["validation"] == {name: truth.validation[name] for name in ("teacher", "student", "ema")}
        near(*([{**line, "phase": PHASES.index(line["phase"])} for line in lines] for lines in (found["log"], log)))


def test_one_after_another_gives_the_same(whole, tmp_path):
    assert run(whole[0], tmp_path, together=1) == []
    for one, other in zip(execution.read(whole[0], tmp_path), execution.read(*whole), strict=True):
        near(one["test"], other["test"])


@pytest.mark.parametrize("arms", [["wild", "tame"], ["wild"]])
def test_a_run_that_diverges_is_kept(tmp_path, arms):
    run(jobs_of({arm: {"lr": 1e30} if arm == "wild" else {} for arm in arms}, seeds=1, clip=0.0, steps=8), tmp_path)
    paths = {arm: tmp_path / f"{arm}-seed=0.json" for arm in arms}
    found = {arm: json.loads(path.read_text(), parse_constant=pytest.fail) for arm, path in paths.items()}
    assert [found[arm]["finite"] for arm in arms] == [arm == "tame" for arm in arms]
    assert found["wild"]["test"]["ema"]["nll"] is None
    assert found["wild"]["log"][-1]["metrics"]["supervised"] is None
    assert 0.0 <= found["wild"]["test"]["ema"]["top1"] <= 1.0


@pytest.mark.parametrize("missing", [["exact-seed=0"], ["slow-seed=1", "none-seed=0"], ["none-seed=0", "none-seed=1"]])
def test_what_is_missing_is_made_again_byte_for_byte(whole, tmp_path, missing):
    jobs, folder = whole
    copy(folder, tmp_path, without=missing)
    run(jobs, tmp_path)
    assert contents(tmp_path) == contents(folder)


def test_a_run_of_an_older_version_is_kept(whole, tmp_path):
    """Its configuration lacks the fields of today, which then are what that version did."""
    jobs, folder = whole
    copy(folder, tmp_path)
    for path in tmp_path.glob("*.json"):
        found = json.loads(path.read_text())
        assert found["config"].pop("finetune_optimizer") == "sgd:momentum=0.9"
        path.write_text(json.dumps(found) + "\n")
    before = contents(tmp_path)
    run(jobs, tmp_path)
    assert contents(tmp_path) == before
    assert execution.read(jobs, tmp_path) == execution.read(*whole)


def test_a_run_without_the_metrics_of_today_is_read(whole, tmp_path):
    """They are unknown, and the others as they were."""
    jobs, folder = whole
    copy(folder, tmp_path)
    for path in tmp_path.glob("*.json"):
        found = json.loads(path.read_text())
        for row in (*found["test"].values(), *found["validation"].values()):
            del row["balanced"], row["macro_f1"]
        path.write_text(json.dumps(found) + "\n")
    old, new = execution.read(jobs, tmp_path), execution.read(jobs, folder)
    assert len(old) == len(new) == len(jobs)
    for one, other in zip(old, new, strict=True):
        for network, row in one["test"].items():
            assert (row["balanced"], row["macro_f1"]) == (None, None)
            assert {**row, "balanced": 0, "macro_f1": 0} == {**other["test"][network], "balanced": 0, "macro_f1": 0}


@pytest.mark.parametrize("step", [1, 5, 7, 12, 15])
def test_interrupted_at_a_step(whole, tmp_path, step):
    jobs, folder = whole
    ticks = []

    def tick(progress):
        ticks.append(progress)
        if len(ticks) == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(jobs, tmp_path, tick=tick)
    assert len(execution.read(jobs, tmp_path)) == {1: 0, 5: 0, 7: 3, 12: 3, 15: 4}[step]
    run(jobs, tmp_path)
    assert contents(tmp_path) == contents(folder)


@pytest.mark.parametrize("written", [0, 1, 2, 5])
def test_interrupted_between_the_files_of_a_population(whole, tmp_path, monkeypatch, written):
    jobs, folder = whole
    with monkeypatch.context() as patched:
        names, write = [], storage.write_text

        def stopping(path, text):
            if len(names) == written:
                raise KeyboardInterrupt
            names.append(path)
            write(path, text)

        patched.setattr(storage, "write_text", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(jobs, tmp_path)
    assert len(contents(tmp_path)) == written
    run(jobs, tmp_path)
    assert contents(tmp_path) == contents(folder)


def test_what_is_there_is_not_trained_again(whole, tmp_path):
    jobs, folder = whole
    ticks = []
    run(jobs, folder, tick=ticks.append)
    assert ticks == []
    copy(folder, tmp_path, without=["none-seed=1"])
    run(jobs, tmp_path, together=1, tick=ticks.append)
    assert [(at.runs, at.name) for at in ticks] == [(1, "none-seed=1")] * 6


def test_where_it_stands(whole, tmp_path):
    """Runs that are finished are counted once, though those of a population are made again."""
    jobs, folder = whole
    copy(folder, tmp_path, without=[job.name for job in jobs[1:]])
    ticks = []
    run(jobs, tmp_path, tick=ticks.append)
    steps = [("mpl", step, 4) for step in (1, 2, 3, 4)] + [("finetune", step, 2) for step in (1, 2)]
    assert [at[3:] for at in ticks] == 3 * steps
    assert list(dict.fromkeys(at[1:3] for at in ticks)) == [(3, "exact-seed=0"), (1, "slow-seed=1"), (2, "none-seed=0")]
    assert list(dict.fromkeys(at.done for at in ticks)) == [1, 3, 4]


def test_files_of_another_study_are_left_alone(whole, tmp_path):
    folder = whole[1]
    copy(folder, tmp_path)
    with pytest.raises(InputError, match=r"exact-seed=0\.json is of another study: name another folder"):
        run(jobs_of(lr=0.3), tmp_path)
    with pytest.raises(InputError, match="another study"):
        execution.read(jobs_of(steps=5), tmp_path)
    assert contents(tmp_path) == contents(folder)


@pytest.mark.parametrize(
    "text", ['{"setting": {}, "arm": "exa', "[]", "3", "{}", '{"config": 3}', "[" * 100_000, "\xff"]
)
def test_a_damaged_file(whole, tmp_path, text):
    (tmp_path / "exact-seed=0.json").write_text(text, encoding="latin1")
    with pytest.raises(InputError, match=r"exact-seed=0\.json (cannot be read .*: remove it|is of another study)"):
        run(whole[0], tmp_path)
    assert (tmp_path / "exact-seed=0.json").read_text(encoding="latin1") == text


@pytest.mark.parametrize("left", [b"", b"\0" * 5000, b"\n"])
def test_a_file_that_a_crash_left_empty_is_made_again(whole, tmp_path, left):
    jobs, folder = whole
    copy(folder, tmp_path)
    (tmp_path / "exact-seed=0.json").write_bytes(left)
    assert len(execution.read(jobs, tmp_path)) == len(jobs) - 1
    run(jobs, tmp_path)
    assert contents(tmp_path) == contents(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("test", {}),
        ("test", {"ema": {"top1": 0.5}}),
        ("test", {"ema": [1, 2]}),
        ("validation", []),
        ("finite", 1),
        ("seed", 7),
        ("arm", "none"),
        ("setting", {"labels": 10}),
        ("log", [3]),
        ("log", [{"phase": "mpl", "step": "1", "metrics": {}, "validation": {}}]),
    ],
)
def test_a_file_whose_fields_are_not_those_of_a_run(whole, tmp_path, field, value):
    jobs, folder = whole
    copy(folder, tmp_path)
    path = tmp_path / "exact-seed=0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(
        InputError, match=r"exact-seed=0\.json (cannot be read|is of another study)|has none of finetuned"
    ):
        results.rows(specification.build(STUDY, "here"), execution.read(jobs, tmp_path))
