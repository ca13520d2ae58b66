"""Freezing and adapters through the command line: trained, counted, resumed, served, exported and merged."""

import json

import pytest
import torch
from command import invoke

from metapl.serving import export
from metapl.training import checkpoint, run_folder
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare
from metapl.training.run_folder import CHECKPOINT

MODEL = "mlp:width=8,depth=1"
FLAGS = ("--data", "moons", "--model", MODEL, "--no-baselines", "--guide", "none", "--validation", 20)
SHORT = ("--steps", 6, "--finetune-steps", 2, "--report-every", 6, "--grad", "exact")


def names():
    model = prepare(TrainConfig(data="moons", model=MODEL)).models.student
    return sorted(model.init(torch.tensor(0))[0])


HEAD = names()[-1].partition(".")[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted") / "run"
    adapted = ("--freeze", f"!{HEAD}", "--adapt", "lora:rank=1,alpha=2")
    done = invoke("train", *FLAGS, *SHORT, *adapted, "--out", folder)
    assert done.code == 0, done.err
    return folder, done.out


def test_what_is_trained_is_counted_and_the_rest_stays(run):
    folder, out = run
    # 2 · 8 + 8 frozen; 8 · 2 + 2 of the head and 2 + 8 of the adapter trained
    assert out.count("(52 parameters, 28 of them trained)") == 2
    networks = checkpoint.load_networks(folder / CHECKPOINT)
    frozen = [networks[name].buffers for name in ("student", "ema", "finetuned")]
    assert all(torch.equal(one[name], frozen[0][name]) for one in frozen for name in one)
    assert any(name.endswith(".up") and value.any() for name, value in networks["teacher"].params.items())
    assert len(networks["teacher"].buffers) == 2


def test_the_exported_network_is_plain_and_answers_alike(run, tmp_path):
    folder, _ = run
    serving = run_folder.serve(folder)
    x = torch.randn(9, 2)
    logits, _ = serving.model.apply(*serving.network, x, train=False)
    merged = export.module(serving)
    assert sorted(name for name, _ in merged.named_parameters()) == names()
    torch.testing.assert_close(merged(x), logits)
    assert invoke("export", folder, "--out", tmp_path / "out").code == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["model"] == MODEL
    assert invoke("eval", folder).code == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "It has 42 parameters; 28 numbers were trained, 10 of them in adapters that are merged into it." in card


def test_a_teacher_may_be_frozen_otherwise():
    given = TrainConfig(data="moons", model=MODEL, teacher_freeze=f"!{HEAD}", adapt="lora", device="cpu")
    models = prepare(given).models
    assert (len(models.student.frozen), len(models.teacher.frozen)) == (0, 2)
    both = prepare(
        TrainConfig(data="moons", model=MODEL, freeze=f"!{HEAD}", teacher_freeze="none", device="cpu")
    ).models
    assert (len(both.student.frozen), len(both.teacher.frozen)) == (2, 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--freeze", "hed"), "freeze: no name matches 'hed'"),
        (("--adapt", "lora"), "--adapt lora is for frozen layers: give --freeze too"),
        (("--freeze", f"!{HEAD}", "--adapt", "lora:rank=0"), "rank=0 must be at least 1"),
        (("--freeze", f"!{HEAD}", "--adapt", "lore"), "lora"),
        (("--freeze", "*.bias", "--adapt", "lora"), "no linear layer or 1×1 convolution is frozen"),
    ],
)
def test_what_cannot_be_is_one_line(flags, message):
    done = invoke("train", *FLAGS, *SHORT, *flags)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
