"""The guide "write an optimiser": its file is the rule of the paper, and its line makes it selectable."""

import re
import types
from pathlib import Path

import pytest
import torch
from asserts import assert_close_tree
from command import invoke

from metapl import optim
from metapl.core import tree

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "write_an_optimiser.md"
BLOCK = re.compile(r'^```python title="(?P<title>[^"]*)"\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL)
CODE = {match["title"]: match["code"] for match in BLOCK.finditer(GUIDE.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def signum():
    module = types.ModuleType("metapl.optim.signum")
    exec(compile(CODE["metapl/optim/signum.py"], "signum.py", "exec"), module.__dict__)
    return module.signum


def test_it_is_the_rule_of_the_paper(signum):
    rule, beta, lr = signum(0.1, momentum=0.7), 0.7, 0.1
    w = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    params, state, m = {"w": w}, rule.init({"w": w}), torch.zeros_like(w)
    for count in range(5):
        grad = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64) * (2 - count)
        updates, state = rule.update({"w": grad}, state, params)
        params = tree.add(params, updates)
        m = beta * m + (1 - beta) * grad
        w = w - lr * torch.sign(m)
        assert_close_tree(params, {"w": w}, rtol=1e-15)
    assert int(state.step) == 5


def test_its_line_makes_it_selectable(signum, monkeypatch, tmp_path):
    assert CODE["fragment: the line"].strip() == '"signum": signum,'
    monkeypatch.setitem(optim.OPTIMIZERS, "signum", signum)
    short = [
        "--steps",
        "3",
        "--report-every",
        "3",
        "--model",
        "mlp:width=8,depth=1",
        "--no-baselines",
        "--device",
        "cpu",
    ]
    found = invoke(
        "train", "--optimizer", "signum:momentum=0.8", "--finetune-steps", "2", *short, "--out", tmp_path / "run"
    )
    assert found.code == 0, found.err
    found = invoke("train", "--optimizer", "signum:nesterov=true", *short, "--out", tmp_path / "other")
    assert found.code == 2
    assert "momentum" in found.err
