"""The guide "write a method": its file is the loss that it states, and its line is all that a run needs."""

import copy
import json
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from asserts import assert_close_tree, assert_pure
from command import invoke
from problems import CLASSES, convnet
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import methods, optim
from metapl.core import rng
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch
from metapl.methods import base
from metapl.nn import functional

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "write_a_method.md"
BLOCK = re.compile(r'^```python title="fragment: (?P<title>[^"]*)"\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL)
CODE = {match["title"]: match["code"] for match in BLOCK.finditer(GUIDE.read_text(encoding="utf-8"))}
PLACE = "metapl.methods.entropy"

VIEWS = Augment(weak=lambda x, key: 1.1 * x + 0.2, strong=lambda x, key: 0.8 * x)
SHIFT = torch.linspace(-0.3, 0.4, CLASSES, dtype=torch.float64)
DECAY = 0.0625  # below the early decays (step + 1) / (step + 10), so it is the decay from the first step on


@pytest.fixture
def entropy(monkeypatch):
    """The module of the guide, with its line in `METHODS`."""
    module = types.ModuleType(PLACE)
    monkeypatch.setitem(sys.modules, PLACE, module)
    exec(compile(CODE["metapl/methods/entropy.py"], "entropy.py", "exec"), module.__dict__)
    ((name, place),) = eval(f"{{{CODE['the line']}}}").items()
    monkeypatch.setitem(methods.METHODS, name, place)
    methods._load.cache_clear()
    yield module
    methods._load.cache_clear()


def batch_of(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(9, 1, 4, 4, generator=generator, dtype=torch.float64)
    return Batch(x[:4], torch.randint(CLASSES, (4,), generator=generator), x[4:])


def by_torch(start, weight, steps):
    """Steps of `torch.optim.SGD` on the loss that the guide states; the network and its average."""
    module = convnet().train()
    module.load_state_dict({**start.params, **start.buffers})
    average = copy.deepcopy(module)
    optimizer = torch.optim.SGD(module.parameters(), 0.2, momentum=0.9)
    for step in range(steps):
        batch = batch_of(step)
        logits = module(VIEWS.weak(torch.cat([batch.x_labelled, batch.x_unlabelled]), None))
        supervised = F.cross_entropy(logits[:4] + SHIFT, batch.y_labelled, label_smoothing=0.1)
        spread = torch.distributions.Categorical(logits=logits[4:]).entropy().mean()
        optimizer.zero_grad()
        (supervised + weight * spread).backward()
        optimizer.step()
        for mean, value in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
            mean.copy_(DECAY * mean + (1.0 - DECAY) * value if value.is_floating_point() else value)
    return module, average


@pytest.mark.parametrize("weight", [0.7, torch.tensor(0.7, dtype=torch.float64)], ids=["number", "tensor"])
def test_its_steps_are_torchs(entropy, weight):
    recipe = base.Recipe(uda_weight=weight, smoothing=0.1, ema=DECAY, logit_shift=SHIFT)
    trainable = base.Trainable(functional.from_module(convnet), optim.sgd(0.2, momentum=0.9))
    method = entropy.entropy(trainable, VIEWS, recipe)
    state = method.init(rng.key(1))
    expected = by_torch(state.train_state, float(weight), steps=3)
    for step in range(3):
        state, _ = assert_pure(method.step, state, batch_of(step), rng.key(step))
    for found, module in zip(method.networks(state).values(), expected, strict=True):
        wanted = (dict(module.named_parameters()), dict(module.named_buffers()))
        assert_close_tree((found.params, found.buffers), wanted, rtol=1e-10)


def test_its_line_is_all_that_a_run_needs(entropy, tmp_path):
    short = ["--steps", 3, "--report-every", 3, "--model", "mlp:width=8,depth=1", "--device", "cpu", "--no-baselines"]
    found = invoke("train", "--method", "entropy", *short, "--out", tmp_path / "run")
    assert found.code == 0, found.err
    assert "entropy minimisation" in found.out
    assert list(json.loads((tmp_path / "run" / "summary.json").read_text())["test"]) == ["entropy"]
    seeds = invoke("train", "--method", "entropy", *short, "--seeds", 2, "--out", tmp_path / "seeds")
    assert seeds.code == 0, seeds.err
    without = invoke("train", "--method", "entropy", "--uda-weight", 0, *short, "--out", tmp_path / "without")
    assert without.code == 2
    assert "supervised" in without.err
