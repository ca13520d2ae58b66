"""`metapl train --seeds`: as many run folders, each what its own run would be."""

import json

import pytest
from asserts import assert_close_tree
from command import invoke

from metapl.training import checkpoint, run_folder

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SMALL = (
    *("--method", "mpl", "--guide", "none", "--steps", "4", "--finetune-steps", "2"),
    *("--batch", "16", "--device", "cpu", "--report-every", "2"),
)
MLP = (*SMALL, "--model", "mlp:width=4,depth=1")
RECORDED = (*SMALL, "--model", "mlp:width=4,depth=1", "--grad", "unroll", "--no-baselines")


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def steps(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "word"), [(MLP, ""), (RECORDED, "one after another: 2 runs, since ")])
def test_each_seed_is_its_own_run(tmp_path, options, word):
    several = invoke("train", *options, "--seed", 5, "--seeds", 2, "--out", tmp_path / "both")
    assert (several.code, several.err) == (0, "")
    assert ("one after another" in several.out) == bool(word)
    assert word in several.out
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["seed5", "seed6", "seeds.json"]
    for seed in (5, 6):
        assert invoke("train", *options, "--seed", seed, "--out", tmp_path / str(seed)).code == 0
        one, other = tmp_path / "both" / f"seed{seed}", tmp_path / str(seed)
        assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
        assert (one / "config.toml").read_text() == (other / "config.toml").read_text()
        assert (one / "split.json").read_text() == (other / "split.json").read_text()
        ours, theirs = (checkpoint.load_networks(path / run_folder.CHECKPOINT) for path in (one, other))
        assert set(ours) == set(theirs)
        for name, network in theirs.items():
            assert_close_tree(ours[name], network, rtol=1e-5)
        steps = [
            [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]
            for path in (one, other)
        ]
        assert steps[0] == steps[1]


def test_the_table_has_means_and_deviations(tmp_path):
    outcome = invoke("train", *MLP, "--no-baselines", "--seeds", 3, "--out", tmp_path / "runs")
    tops = [100 * summary(tmp_path / "runs" / f"seed{seed}")["test"]["ema"]["top1"] for seed in range(3)]
    mean = sum(tops) / 3
    deviation = (sum((top - mean) ** 2 for top in tops) / 2) ** 0.5
    (line,) = (line for line in outcome.out.splitlines() if "student, averaged" in line)
    assert line.split("│")[2].strip() == f"{mean:.2f} ± {deviation:.2f}"
    assert "3 seeds from 0 on" in outcome.out


def test_processes_share_the_seeds(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        outcome = invoke("train", *MLP, "--no-baselines", "--seeds", 3, "--out", tmp_path / "runs")
        assert (outcome.code, outcome.err) == (0, "")
        assert len(list((tmp_path / "runs").glob("seed?"))) == (2, 3)[rank]
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    idle = invoke("train", *MLP, "--seeds", 3, "--out", tmp_path / "elsewhere")
    assert (idle.code, idle.err, (tmp_path / "elsewhere").exists()) == (0, "", False)
    refused = invoke("train", *MLP, "--seeds", 2)
    assert (refused.code, refused.err) == (2, "metapl: several processes need one folder: give --out\n")


def test_bad_numbers_of_seeds(tmp_path):
    outcome = invoke("train", *MLP, "--seeds", 0, "--out", tmp_path / "none")
    assert (outcome.code, outcome.err) == (2, "metapl: --seeds 0 must be at least 1\n")
    assert not (tmp_path / "none").exists()
