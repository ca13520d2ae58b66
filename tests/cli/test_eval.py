"""`metapl eval`: the numbers of a run again, and runs that cannot be evaluated."""

import json
import math

import pytest
import torch
from command import assert_one_line, invoke
from tiny_runs import ALONE, MLP, TINY, networks_of, summary_of

from metapl.core.types import Variables
from metapl.training import checkpoint

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize("part", ["test", "validation"])
@pytest.mark.parametrize(
    "args",
    [
        (*TINY, *MLP),
        (*TINY, "--no-baselines", "--model", "convnet:width=8,depth=2,norm=batch"),
        (*TINY, *MLP, "--no-baselines", "--teacher-model", "convnet:width=4,depth=1"),
    ],
    ids=["mlp", "batchnorm", "two networks"],
)
def test_evaluating_a_run_gives_its_numbers_again(train, tmp_path, part, args):
    folder, file = train(*args), tmp_path / "deep" / "numbers.json"
    outcome = invoke("eval", folder, "--part", part, "--device", "cpu", "--json", file)
    assert (outcome.code, outcome.err) == (0, "")
    expected, found = summary_of(folder)[part], json.loads(file.read_text())
    assert {name: pytest.approx(row, abs=1e-6) for name, row in expected.items()} == found
    assert f"{100 * found['finetuned']['top1']:.2f}" in outcome.out


def test_evaluating_reads_the_weights(train, tmp_path):
    """Other weights in the checkpoint, other numbers."""
    folder, copy = train(*ALONE), tmp_path / "copy"
    for name in ("config.toml", "split.json"):
        checkpoint.write_text(copy / name, (folder / name).read_text())
    still = {
        name: Variables({key: torch.zeros_like(value) for key, value in network.params.items()}, network.buffers)
        for name, network in networks_of(folder).items()
    }
    checkpoint.save_networks(copy / "checkpoints" / "final.safetensors", still)
    assert invoke("eval", copy, "--json", tmp_path / "numbers.json").code == 0
    for row in json.loads((tmp_path / "numbers.json").read_text()).values():
        assert row["nll"] == pytest.approx(math.log(10), rel=1e-6)
        assert row["top1"] == pytest.approx(0.1)


def _damaged(folder, tmp_path, missing):
    copy = tmp_path / "copy"
    for name in {"config.toml", "split.json"} - {missing}:
        checkpoint.write_text(copy / name, (folder / name).read_text())
    if missing != "final.safetensors":
        checkpoint.save_networks(copy / "checkpoints" / "final.safetensors", networks_of(folder))
    return copy


@pytest.mark.parametrize("missing", ["config.toml", "split.json", "final.safetensors"])
def test_evaluating_a_run_that_is_incomplete(train, tmp_path, missing):
    copy = _damaged(train(*ALONE), tmp_path, missing)
    assert_one_line(invoke("eval", copy), "is not a run" if missing == "config.toml" else missing)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("nowhere",), "nowhere is not a run"),
        ((".",), "is not a run"),
        ((), "'run'"),
        (("RUN", "--part", "train"), "--part train"),
        (("RUN", "--device", "cuda:7"), "cuda:7"),
        (("RUN", "--json", "file/numbers.json"), "file/numbers.json"),
        (("RUN", "--nope"), "--nope"),
    ],
    ids=str,
)
def test_bad_input_to_eval(train, tmp_path, monkeypatch, args, word):
    folder = train(*ALONE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert_one_line(invoke("eval", *(folder if arg == "RUN" else arg for arg in args)), word, silent=False)
