"""`metapl train`: what a run leaves behind, what it prints, and that it is the same again."""

import json
import sys
import tomllib
from dataclasses import asdict
from unittest import mock

import pytest
import torch
from asserts import assert_close_tree
from command import assert_one_line, invoke, painting
from matplotlib import image
from tiny_runs import ALONE, MLP, TINY, networks_of, summary_of

from metapl.cli import display
from metapl.estimators import ESTIMATORS
from metapl.methods import METHODS
from metapl.training import phases
from metapl.training.config import TrainConfig, resolve

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
MPL = {"teacher", "student", "ema", "finetuned"}
PANEL = {"logistic", "self-training", "spreading"}
FITTED = {*PANEL, "consensus"}
BASELINES = {*PANEL, "supervised", "pseudo-labels", "uda"}


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


FILES = {
    "config.toml",
    "environment.json",
    "split.json",
    "fingerprint.json",
    "data.json",
    "confusion.json",
    "metrics.jsonl",
    "summary.json",
    "checkpoints/final.safetensors",
    "plots/curves.png",
}


def assert_whole(folder, networks, extra=frozenset()):
    """Every file of a run, each of which can be read, and every network in each of them."""
    files = FILES - {"plots/curves.png"} if networks <= FITTED else FILES
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == files | set(extra)
    summary = summary_of(folder)
    assert set(summary["test"]) == set(summary["validation"]) == set(networks_of(folder)) == networks
    for row in (*summary["test"].values(), *summary["validation"].values()):
        assert set(row) == {"top1", "top5", "nll", "ece", "balanced", "macro_f1"}
        assert row["top1"] <= row["top5"] <= 1
        assert 0 <= row["top1"] <= 1
        assert 0 <= row["ece"] <= 1
        assert row["nll"] > 0
    assert summary["config"] == asdict(resolve({}, folder / "config.toml"))


# ---------------------------------------------------------------- training


def test_a_run_with_its_baselines(train):
    folder = train(*TINY, *MLP)
    assert_whole(folder, MPL | BASELINES)
    phases = [line["phase"] for line in lines_of(folder)]
    assert phases == ["supervised", "pseudo-labels", "uda", "mpl", "finetune"]


def test_the_summary_keeps_its_contract(train):
    summary = summary_of(train(*TINY, *MLP))
    assert {"teacher", "student", "ema", "finetuned", "supervised"} <= set(summary["test"])
    assert {"config", "seed", "steps", "seconds", "peak_memory_bytes"} <= set(summary)
    assert [summary["seed"], summary["steps"], summary["pseudo_labels"]] == [0, 3, "soft"]
    assert summary["seconds"] > 0
    assert summary["peak_memory_bytes"] > 2**20


@pytest.mark.parametrize(
    ("method", "networks"),
    [
        ("mpl", MPL),
        ("reduced", {*MPL, "fixed"}),
        ("uda", {"uda"}),
        ("pseudo-labels", {"supervised", "pseudo-labels"}),
        ("supervised", {"supervised"}),
        *((name, {name}) for name in sorted(FITTED)),
    ],
)
def test_methods(train, method, networks):
    folder = train(*ALONE, "--method", method)
    assert_whole(folder, networks)
    if method in FITTED:
        assert not lines_of(folder)
    else:
        assert lines_of(folder)[-1]["phase"] == ("finetune" if method in ("mpl", "reduced") else method)


def test_every_method_is_tested():
    assert set(METHODS) == {"mpl", "reduced", "uda", "pseudo-labels", "supervised", *FITTED}


@pytest.mark.slow
@pytest.mark.parametrize("grad", [*ESTIMATORS, "first-order:baseline=0,reduction=sum"])
def test_estimators(train, grad):
    folder = train(*ALONE, "--grad", grad)
    assert_whole(folder, MPL)
    (line,) = [line for line in lines_of(folder) if line["phase"] == "mpl"]
    assert set(line["metrics"]) == {"supervised", "uda", "student", "exam", "feedback"}
    assert (line["metrics"]["feedback"] > 0) == (grad != "none")
    assert summary_of(folder)["pseudo_labels"] == ESTIMATORS[grad.partition(":")[0]]().targets[0]


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_convolutional_networks(train, norm):
    folder = train(*TINY, "--no-baselines", "--model", f"convnet:width=8,depth=2,norm={norm}")
    assert_whole(folder, MPL)
    names = networks_of(folder)["student"].buffers
    assert any("running_mean" in name for name in names) == (norm == "batch")


def test_a_teacher_with_a_network_of_its_own(train):
    folder = train(*TINY, *MLP, "--no-baselines", "--teacher-model", "convnet:width=4,depth=1")
    found = networks_of(folder)
    assert found["teacher"].buffers
    assert not found["student"].buffers


def test_moons_come_with_a_picture_of_their_regions(tmp_path):
    moons = ("--data", "moons:points=300", "--labels", "6", "--validation", "20")
    assert painting("train", *TINY, *MLP, *moons, "--out", tmp_path / "run").code == 0
    assert_whole(tmp_path / "run", MPL | BASELINES, extra={"plots/regions.png"})
    for name in ("curves", "regions"):
        assert image.imread(tmp_path / "run" / "plots" / f"{name}.png").std() > 0.01


def test_no_validation_part_and_no_finetuning(train):
    folder = train(*ALONE, "--validation", "0", "--finetune-steps", "0")
    summary = summary_of(folder)
    assert summary["validation"] == {}
    assert set(summary["test"]) == {"teacher", "student", "ema"}
    assert invoke("eval", folder, "--part", "validation").err.count("\n") == 1


def test_the_split_of_a_run_is_balanced_and_apart(train):
    folder = train(*TINY, *MLP)
    parts = json.loads((folder / "split.json").read_text())
    parts["unlabelled"] = [index for first, last in parts["unlabelled"] for index in range(first, last + 1)]
    assert {name: len(part) for name, part in parts.items()} == {"labelled": 10, "unlabelled": 1097, "validation": 200}
    assert not set(parts["validation"]) & set(parts["labelled"] + parts["unlabelled"])


def test_what_a_run_prints(tmp_path):
    outcome = invoke("train", *ALONE, "--out", tmp_path / "run")
    row = summary_of(tmp_path / "run")["test"]["finetuned"]
    (printed,) = [line for line in outcome.out.splitlines() if line.startswith("│ finetuned")]
    assert printed.strip("│").split() == [
        *("finetuned", "│", f"{100 * row['top1']:.2f}", "│", f"{100 * row['top5']:.2f}", "│"),
        *(f"{row['nll']:.3f}", "│", f"{100 * row['ece']:.2f}"),
    ]
    assert f"metapl eval {tmp_path / 'run'}" in outcome.out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (7169, "119 min"), (7170, "2 h 0 min"), (10_799, "3 h 0 min")],
)
def test_the_time_left_is_rounded_once(seconds, text):
    assert display.duration(seconds) == text


def test_a_preset_can_be_changed_by_flags_until_it_runs_here(tmp_path):
    data = ("--data", "digits", "--augment", "auto", "--labels", "10", "--validation", "20")
    outcome = invoke("train", "--preset", "cifar10-4k", *data, *ALONE, "--warmup", "1", "--out", tmp_path / "run")
    assert outcome.code == 0
    config = summary_of(tmp_path / "run")["config"]
    assert (config["lr"], config["smoothing"], config["feedback_size"], config["finetune_batch"]) == (
        0.3,
        0.1,
        "raw",
        512,
    )
    assert (config["data"], config["steps"]) == ("digits", 3)


def test_a_logger_that_is_not_installed_stops_the_run_before_it_has_a_folder(tmp_path):
    with mock.patch.dict(sys.modules, {"tensorboard": None, "torch.utils.tensorboard": None}):
        outcome = invoke("train", *ALONE, "--log", "tensorboard", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "metapl[tensorboard]" in outcome.err
    assert not (tmp_path / "run").exists()


def test_without_a_folder_runs_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert invoke("train", *ALONE, "--method", "supervised", "--seed", "4").code == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "digits-supervised-seed4",
        "digits-supervised-seed4-2",
    ]


def test_flags_override_the_file_and_the_rest_is_saved(tmp_path):
    file = tmp_path / "given.toml"
    file.write_text('steps = 2\nmethod = "supervised"\nlabels = 30\nmodel = "mlp:width=4"\nbaselines = false\n')
    outcome = invoke("train", "--config", file, "--steps", "3", "--device", "cpu", "--out", tmp_path / "run")
    assert outcome.code == 0
    given = {"steps": 3, "method": "supervised", "labels": 30, "model": "mlp:width=4", "baselines": False}
    settled = {"embed": "none", "grad": "exact", "guide": "consensus", "alignment": "uniform"}
    expected = TrainConfig(**given, **settled, device="cpu")
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text()) == asdict(expected)


def test_a_saved_configuration_gives_the_same_run(train, tmp_path):
    folder = train(*ALONE, "--grad", "first-order", "--seed", "5")
    assert invoke("train", "--config", folder / "config.toml", "--out", tmp_path / "run").code == 0
    assert _bytes(tmp_path / "run") == _bytes(folder)


def _bytes(folder):
    return (folder / "checkpoints" / "final.safetensors").read_bytes()


def test_the_same_seed_gives_the_same_run_bit_for_bit(train, tmp_path):
    first = train(*TINY, *MLP)
    assert invoke("train", *TINY, *MLP, "--out", tmp_path / "again").code == 0
    assert _bytes(tmp_path / "again") == _bytes(first)
    assert summary_of(tmp_path / "again")["test"] == summary_of(first)["test"]
    assert (tmp_path / "again" / "split.json").read_bytes() == (first / "split.json").read_bytes()


def test_another_seed_gives_another_run(train):
    one, other = train(*ALONE), train(*ALONE, "--seed", "1")
    assert (one / "split.json").read_bytes() != (other / "split.json").read_bytes()
    assert _bytes(one) != _bytes(other)


def test_arms_share_split_weights_and_batches(train):
    """After one step the students of both arms are the same, for the same teacher has taught them the same batch."""
    once = ("--steps", "1", "--finetune-steps", "0", *MLP, "--no-baselines", "--device", "cpu")
    exact, silent = (train(*once, "--grad", grad) for grad in ("exact", "none"))
    assert (exact / "split.json").read_bytes() == (silent / "split.json").read_bytes()
    one, other = networks_of(exact), networks_of(silent)
    assert_close_tree(tuple(one["student"]), tuple(other["student"]), rtol=0)
    assert not torch.equal(one["teacher"].params["1.weight"], other["teacher"].params["1.weight"])


def test_baselines_change_nothing_of_the_method(train):
    alone, together = networks_of(train(*ALONE)), networks_of(train(*TINY, *MLP))
    for name in MPL:
        assert_close_tree(tuple(alone[name]), tuple(together[name]), rtol=0)


def test_a_run_that_diverges_says_so_in_one_line(tmp_path):
    outcome = invoke("train", *ALONE, "--lr", "1e30", "--out", tmp_path / "run")
    assert_one_line(outcome, "--lr", silent=False)


def test_interrupting(tmp_path, monkeypatch):
    monkeypatch.setattr(phases, "run", mock.Mock(side_effect=KeyboardInterrupt))
    outcome = invoke("train", *ALONE, "--out", tmp_path / "run")
    assert outcome.code == 130
    assert outcome.err.count("\n") <= 1
