"""`metapl tune`."""

import pytest
from command import assert_one_line, invoke
from searching import RATES, Fake, build, lines_of, runs_of

from metapl.studies import execution, specification

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


REAL = """
seeds = 2
[common]
method = "mpl"
guide = "none"
labels = 10
steps = 3
finetune_steps = 2
batch = 16
model = "mlp:width=8,depth=1"
device = "cpu"
[over]
labels = [10, 20]
[tune]
trials = 2
seeds = 2
lr = { low = 0.01, high = 0.3 }
[arms.none]
grad = "none"
[arms.exact]
"""


@pytest.mark.slow
def test_the_command(tmp_path):
    """A search that trains; the study that it writes is one for `metapl ablate`."""
    path, out = tmp_path / "my study.toml", tmp_path / "my out"
    path.write_text(REAL)
    outcome = invoke("tune", path, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    lines = lines_of(out)
    assert [(line["setting"]["labels"], line["arm"], line["number"]) for line in lines] == [
        (labels, arm, number) for labels in (10, 20) for arm in ("none", "exact") for number in (0, 1)
    ]
    runs = {(run["setting"]["labels"], run["arm"], run["seed"]): run for run in runs_of(out)}
    for line in lines:
        mine = [runs[line["setting"]["labels"], f"{line['arm']}#{line['number']}", seed] for seed in (1000, 1001)]
        assert line["scores"] == [run["validation"]["finetuned"]["top1"] for run in mine]
        assert 0 <= line["mean"] <= 1
    for labels in (10, 20):
        assert f"study      {out / f'tuned-labels={labels}.toml'}" in outcome.out
        command = f"metapl ablate '{out / f'tuned-labels={labels}.toml'}' --out '{out / f'tuned-labels={labels}'}'"
        assert command in outcome.out
        for arm in ("none", "exact"):
            both = [line for line in lines if (line["setting"]["labels"], line["arm"]) == (labels, arm)]
            best = max(both, key=lambda line: line["mean"])
            cells = [f"labels={labels}", arm, f"lr={best['values']['lr']}", str(best["number"])]
            cells += [f"{100 * both[0]['mean']:.2f} → {100 * best['mean']:.2f}"]
            assert any(
                [cell.strip() for cell in row.strip("│").split("│")] == cells for row in outcome.out.splitlines()
            )


def test_the_bar_counts_all_runs(tmp_path, monkeypatch):
    """Of all arms and rounds, also those that are done."""
    monkeypatch.setattr(execution, "run", Fake())
    path = tmp_path / "study.toml"
    path.write_text(specification.dump(build({"trials": 12, "seeds": 2, "lr": RATES})))
    outcome = invoke("tune", path, "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    assert "48 runs of 2 arms" in outcome.out
    assert "48/48" in outcome.out


WRONG = [
    ("tune", "Missing"),
    ("tune study.toml", "--out"),
    ("tune nowhere.toml --out out", "nowhere.toml"),
    ("tune study.toml --out out --together 0", "--together 0"),
    ("tune empty.toml --out out", "nothing to tune"),
    ("tune study.toml --out there", "--out there exists"),
]


@pytest.mark.parametrize(("args", "word"), WRONG, ids=[args for args, _ in WRONG])
def test_bad_input_on_the_command_line(tmp_path, monkeypatch, args, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(specification.dump(build({"lr": RATES})))
    (tmp_path / "empty.toml").write_text(specification.dump(build({})))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("precious")
    monkeypatch.setattr(execution, "run", None)
    assert_one_line(invoke(*args.split()), word)
    assert {path.name for path in tmp_path.iterdir()} == {"study.toml", "empty.toml", "there"}
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]
