"""A network with a frozen layer through the command line: trained, averaged, counted, served and exported."""

import pytest
import torch
from command import invoke

from metapl.training import checkpoint, run_folder
from metapl.training.run_folder import CHECKPOINT

NETWORK = """
from torch import nn

def half_frozen(shape, classes):
    return nn.Sequential(nn.Linear(2, 8).requires_grad_(False), nn.Tanh(), nn.Linear(8, classes))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "half_frozen_network.py").write_text(NETWORK, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    model = "module:half_frozen_network:half_frozen"
    short = ("--steps", 6, "--finetune-steps", 2, "--report-every", 6)
    flags = ("--method", "mpl", "--guide", "none", "--no-baselines", *short, "--validation", 20)
    done = invoke("train", "--data", "moons", "--model", model, *flags, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    return tmp_path / "run", done.out


def test_a_frozen_layer_stays_and_is_counted_apart(run, tmp_path):
    folder, out = run
    assert out.count("(42 parameters, 18 of them trained)") == 2  # 2 · 8 + 8 frozen, 8 · 2 + 2 trained; both networks
    networks = checkpoint.load_networks(folder / CHECKPOINT)
    assert set(networks["student"].params) == {"2.weight", "2.bias"}
    frozen = [networks[name].buffers["0.weight"] for name in ("student", "ema", "finetuned")]
    assert all(torch.equal(one, frozen[0]) for one in frozen)
    assert not torch.equal(networks["student"].params["2.weight"], networks["finetuned"].params["2.weight"])
    serving = run_folder.serve(folder, trust_code=True)
    assert serving.model.frozen == {"0.weight", "0.bias"}
    assert invoke("export", folder, "--out", tmp_path / "exported", "--trust-code").code == 0
    card = (tmp_path / "exported" / "README.md").read_text(encoding="utf-8")
    assert "It has 42 parameters, 18 of them trained." in card
