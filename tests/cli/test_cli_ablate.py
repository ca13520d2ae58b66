"""`metapl ablate`."""

import json
from functools import partial

import command
import pytest
from command import assert_one_line

from metapl.cli import ablate
from metapl.registry.errors import InputError
from metapl.studies import specification
from metapl.training import population

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SMALL = ("--model", "mlp:width=4,depth=1", "--batch", "8", "--guide", "none", "--device", "cpu")
TINY = (*SMALL, "--steps", "3", "--finetune-steps", "1", "--seeds", "2")
ARMS = ("--vary", "grad=none exact")
RUNS = {f"grad={arm}-seed={seed}.json" for arm in ("none", "exact") for seed in (0, 1)}


invoke = partial(command.invoke, "ablate")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    return {path.name for path in (folder / "runs").iterdir()}


def table(text):
    lines = [line for line in text.splitlines() if line.startswith(("│", "┃"))]
    return [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("ablate") / "out"
    return out, invoke(*ARMS, *TINY, "--out", out)


def test_the_command(finished):
    out, outcome = finished
    assert (outcome.code, outcome.err) == (0, "")
    assert names(out) == RUNS
    assert {"study.toml", "environment.json", "runs.jsonl", "table.md"} <= {path.name for path in out.iterdir()}
    about = specification.read(out / "study.toml")
    assert (about.arms, about.against) == (
        {"grad=none": {"grad": "none"}, "grad=exact": {"grad": "exact"}},
        "grad=none",
    )
    assert (about.common["steps"], about.common["model"], tuple(about.seeds)) == (3, "mlp:width=4,depth=1", (0, 1))
    assert len((out / "runs.jsonl").read_text().splitlines()) == 4
    assert "4 runs of 2 arms" in outcome.out


def test_what_it_prints(finished):
    """Numbers of the files, and paths that are there."""
    out, outcome = finished
    head, none, exact = table(outcome.out)
    assert head == ["arm", "top-1 %", "sd", "− grad=none", "better on", "sign p", "t p"]
    for row, arm in ((none, "none"), (exact, "exact")):
        assert row[0] == f"grad={arm}"
        runs = [json.loads((out / "runs" / f"{row[0]}-seed={seed}.json").read_text()) for seed in (0, 1)]
        assert row[1] == f"{50 * sum(run['test']['finetuned']['top1'] for run in runs):.2f}"
    assert none[3:] == ["", "", "", ""]
    assert "±" in exact[3]
    paths = [line.split()[-1] for line in outcome.out.splitlines() if line.endswith((".html", ".png", ".md", ".jsonl"))]
    assert len(paths) == 4
    assert all((out.parent / path).stat().st_size for path in paths)


def test_it_goes_on_where_it_was(finished):
    """The same command again changes nothing that a run wrote; a run that is missing is made as it was."""
    out, _ = finished
    before = contents(out / "runs")
    again = invoke(*ARMS, *TINY, "--out", out)
    assert again.code == 0
    assert "4 of them done before" in again.out
    (out / "runs" / "grad=exact-seed=1.json").unlink()
    assert "3 of them done before" in invoke(*ARMS, *TINY, "--out", out).out
    assert contents(out / "runs") == before


def test_one_after_another(finished, tmp_path, monkeypatch):
    outcome = finished[1]
    monkeypatch.setattr(population, "run", lambda *args: pytest.fail("a population"))
    alone = invoke(*ARMS, *TINY, "--out", tmp_path / "out", "--together", 1)
    assert (alone.code, table(alone.out)) == (0, table(outcome.out))


def test_what_cannot_be_a_population_is_said(tmp_path):
    outcome = invoke("--vary", "grad=higher", *TINY, "--out", tmp_path / "out")
    assert outcome.code == 0
    assert "one after another: 2 runs such as grad=higher-seed=0, since " in outcome.out
    assert [row[0] for row in table(outcome.out)[1:]] == ["grad=higher"]


def test_every_combination_over_every_setting(tmp_path):
    """Numbers that differ, the first seed, and the arm to compare with."""
    vary = ("--vary", "lr=0.1 0.2", "--vary", "ema=0.5 0.9", "--over", "labels=10 20", "--method", "supervised")
    some = ("--against", "lr=0.2, ema=0.5", "--seeds", "1", "--first-seed", "7")
    outcome = invoke(*vary, *SMALL, "--steps", "2", *some, "--out", tmp_path / "out")
    assert outcome.code == 0
    about = specification.read(tmp_path / "out" / "study.toml")
    assert list(about.arms) == [f"lr={lr}, ema={ema}" for lr in (0.1, 0.2) for ema in (0.5, 0.9)]
    assert (about.over, tuple(about.seeds), about.against) == ({"labels": [10, 20]}, (7,), "lr=0.2, ema=0.5")
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 8
    assert outcome.out.index("labels=10") < outcome.out.index("labels=20")
    assert [row[3] == "" for row in table(outcome.out) if row[0] != "arm"] == [False, False, True, False] * 2


def test_a_file_and_flags_over_it(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(
        "seeds = 5\nagainst = 'b'\n[common]\nsteps = 9\nlr = 0.3\n[over]\nlabels = [10]\n[arms.a]\n[arms.b]\nema = 0.5"
    )
    given = ("--steps", "2", "--method", "supervised", "--seeds", "1", *SMALL)
    assert invoke(file, *given, "--out", tmp_path / "out").code == 0
    about = specification.read(tmp_path / "out" / "study.toml")
    assert (tuple(about.seeds), about.against, list(about.arms), about.over) == (
        (0,),
        "b",
        ["a", "b"],
        {"labels": [10]},
    )
    assert (about.common["steps"], about.common["lr"], about.common["method"]) == (2, 0.3, "supervised")
    read = ablate.read(file, ["grad=none exact"], ["labels=20 30"], {}, {"against": "grad=exact", "seeds": None})
    assert (list(read.arms), read.over) == (["grad=none", "grad=exact"], {"labels": [20, 30]})
    assert (read.against, len(read.seeds), read.common["steps"]) == ("grad=exact", 5, 9)


def test_pairs_of_a_file_go_with_its_arms(tmp_path):
    (tmp_path / "study.toml").write_text("pairs = [['a', 'b']]\n[arms.a]\n[arms.b]\nema = 0.5\n")
    assert ablate.read(tmp_path / "study.toml", [], [], {}, {}).pairs == (("a", "b"),)
    assert ablate.read(tmp_path / "study.toml", ["grad=none exact"], [], {}, {}).pairs == ()


def test_against_of_a_file_must_be_among_the_arms_of_the_flags(tmp_path):
    (tmp_path / "study.toml").write_text("against = 'b'\n[arms.b]\n")
    assert_one_line(
        invoke(tmp_path / "study.toml", *ARMS, "--out", tmp_path / "out"), "unknown arm to compare with 'b'"
    )


def test_interrupted(finished, tmp_path, monkeypatch):
    """The runs that were finished before are kept, and the same command makes the others."""
    out, train = tmp_path / "out", population.run

    def stop(conditions, since=None):
        if conditions[0].config.grad == "exact":
            raise KeyboardInterrupt
        return train(conditions, since)

    with monkeypatch.context() as patched:
        patched.setattr(population, "run", stop)
        stopped = invoke(*ARMS, *TINY, "--out", out)
    assert (stopped.code, stopped.err) == (130, "metapl: interrupted\n")
    assert names(out) == {name for name in RUNS if "none" in name}
    assert "2 of them done before" in invoke(*ARMS, *TINY, "--out", out).out
    assert contents(out / "runs") == contents(finished[0] / "runs")


@pytest.mark.slow
def test_processes_of_torchrun(finished, tmp_path, monkeypatch):
    """The last one prints the table, from the files of all."""
    out, outcome = finished
    monkeypatch.setenv("WORLD_SIZE", "2")
    printed = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        printed.append(invoke(*ARMS, *TINY, "--out", tmp_path / "out"))
    assert [one.code for one in printed] == [0, 0]
    assert [table(one.out) for one in printed] == [[], table(outcome.out)]
    assert contents(tmp_path / "out" / "runs") == contents(out / "runs")


BAD = [
    ([], "nothing to compare: name a TOML file, or give --vary"),
    (["--steps", "3"], "nothing to compare"),
    (["nowhere.toml"], "nowhere.toml: cannot be read"),
    (["file"], "file: not valid TOML"),
    (["number.toml"], "number.toml: common must be a table"),
    (["number.toml", "--lr", "0.3"], "number.toml: common must be a table"),
    ([*ARMS, "--together", "0"], "--together 0 must be at least 1"),
    ([*ARMS, "--seeds", "0"], "seeds must be at least 1"),
    ([*ARMS, "--seeds", "two"], "--seeds"),
    ([*ARMS, "--against", "exact"], "unknown arm to compare with 'exact'"),
    ([*ARMS, "--lr", "-1"], "--lr -1.0 must be more than 0"),
    ([*ARMS, "--seed", "3"], "--seed"),
    (["--vary", "grad"], "--vary 'grad' must be KEY=VALUE VALUE …"),
    (["--vary", "grad="], "--vary 'grad=' must be KEY=VALUE VALUE …"),
    (["--vary", ""], "--vary '' must be KEY=VALUE VALUE …"),
    (["--vary", "gard=none exact"], "'gard': did you mean 'grad'?"),
    (["--vary", "labels=10 ten"], "labels=ten: expected a whole number"),
    (["--vary", "lr=0.1 nan"], "lr=nan: expected a number, as in lr=0.1\n"),
    (["--vary", "grad='none exact"], "close every quote"),
    (["--vary", "grad=none", "--vary", "grad=exact"], "--vary"),
    (["--vary", "seed=1 2"], "seed"),
    ([*ARMS, "--over", "labels"], "--over 'labels' must be KEY=VALUE VALUE …"),
    ([*ARMS, "--over", "lable=10 20"], "'lable': did you mean 'labels'?"),
    ([*ARMS, "--over", "grad=none exact"], "grad"),
    # Found when a run is prepared, which is before any is trained.
    (["--vary", "grad=none exat"], "unknown estimator 'exat': did you mean 'exact'?"),
    ([*ARMS, "--over", "labels=10 5"], "--labels 5"),
    ([*ARMS, "--model", "mpl"], "unknown model 'mpl'"),
]


@pytest.mark.parametrize(("args", "word"), BAD, ids=[" ".join(args) for args, _ in BAD])
def test_bad_input_leaves_nothing_behind(tmp_path, monkeypatch, args, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "number.toml").write_text("common = 3\n[arms.a]\n")
    assert_one_line(invoke(*TINY[2:], *args, "--out", "out"), word)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "number.toml"}
    assert (tmp_path / "file").read_text() == "precious"


def test_the_folder_is_needed_and_must_be_of_this_study(finished, tmp_path):
    out, _ = finished
    assert_one_line(invoke(*ARMS), "--out")
    (tmp_path / "precious").write_text("precious")
    assert_one_line(invoke(*ARMS, "--out", tmp_path), "exists and holds no study: name a new folder")
    assert_one_line(invoke(*ARMS, "--out", tmp_path / "precious"), "exists and holds no study")
    before = contents(out)
    assert_one_line(invoke(*ARMS, *TINY, "--lr", "0.2", "--out", out), "holds another study: name another folder")
    assert contents(out) == before
    (out / "runs" / "grad=none-seed=0.json").write_text('{"config":')
    damaged = invoke(*ARMS, *TINY, "--out", out)
    assert (damaged.code, damaged.err.count("\n")) == (2, 1)
    assert "grad=none-seed=0.json cannot be read" in damaged.err
    assert "remove it" in damaged.err
    for name, text in before.items():
        (out / name).write_bytes(text)


def test_presets_can_be_compared():
    """Each is an arm of all that it sets, and flags of the command line hold for both."""
    found = ablate.read(None, ["preset=fixmatch freematch"], [], {"ema": 0.5}, {"seeds": 1})
    assert list(found.arms) == ["preset=fixmatch", "preset=freematch"]
    assert found.arms["preset=freematch"]["threshold"] == "adaptive:decay=0.999"
    with pytest.raises(InputError, match=r"unknown preset 'fixmach': did you mean 'fixmatch'"):
        ablate.read(None, ["preset=fixmach"], [], {}, {})
