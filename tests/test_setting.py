"""A configuration turned into objects: what decays, which split, which preset."""

import json
import tomllib
from dataclasses import asdict

import pytest
import torch
from torch import nn

from metapl import functional, rng, setting
from metapl.config import PRESETS, TrainConfig, presets, resolve
from metapl.data.split import to_json
from metapl.errors import InputError


def normalised():
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


@pytest.mark.parametrize(
    "rule", ["sgd:momentum=0.9,weight_decay=0.1", "adamw:weight_decay=0.1", "rmsprop:weight_decay=0.1"]
)
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_weight_decay_leaves_normalisation_alone(rule, clip):
    """Two steps of torch.optim with two groups, clipped over all parameters together."""
    config = TrainConfig(optimizer=rule, clip=clip)
    model = functional.from_module(normalised)
    params, _ = model.init(rng.key(0))
    optimizer = setting.optimizer(config, 0.05, model)
    module = normalised()
    module.load_state_dict(params)
    named = dict(module.named_parameters())
    groups = [
        {"params": [p for n, p in named.items() if not n.startswith("1.")], "weight_decay": 0.1},
        {"params": [p for n, p in named.items() if n.startswith("1.")], "weight_decay": 0.0},
    ]
    kinds = {
        "sgd": (torch.optim.SGD, {"momentum": 0.9}),
        "adamw": (torch.optim.AdamW, {}),
        "rmsprop": (torch.optim.RMSprop, {}),
    }
    kind, options = kinds[rule.partition(":")[0]]
    truth = kind(groups, lr=0.05, **options)
    state = optimizer.init(params)
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        grads = {name: torch.randn(value.shape, generator=generator) for name, value in params.items()}
        for name, value in named.items():
            value.grad = grads[name].clone()
        if clip:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        truth.step()
        updates, state = optimizer.update(grads, state, params)
        params = {name: value + updates[name] for name, value in params.items()}
    for name, value in named.items():
        torch.testing.assert_close(params[name], value.detach(), rtol=1e-5, atol=1e-6)


def test_without_weight_decay_or_normalisation_there_is_one_rule():
    model = functional.from_module(lambda: nn.Linear(3, 2))
    assert setting.optimizer(TrainConfig(clip=0.0), 0.1, model).rule.name == "sgd"
    model = functional.from_module(normalised)
    assert setting.optimizer(TrainConfig(clip=0.0, optimizer="sgd"), 0.1, model).rule.name == "sgd"
    assert setting.optimizer(TrainConfig(clip=0.0), 0.1, model).rule.name == "groups"


def test_a_split_can_be_that_of_another_run(tmp_path):
    one = setting.prepare(TrainConfig(labels=30, seed=7))
    file = tmp_path / "split.json"
    file.write_text(json.dumps(to_json(one.split)))
    other = setting.prepare(TrainConfig(seed=1, split=str(file)))
    assert all(torch.equal(a, b) for a, b in zip(one.split, other.split, strict=True))
    with pytest.raises(InputError, match=r"split\.json cannot be read .*same data$"):
        setting.prepare(TrainConfig(data="moons:points=100", split=str(file)))
    with pytest.raises(InputError, match=r"missing\.json cannot be read"):
        setting.prepare(TrainConfig(split=str(tmp_path / "missing.json")))


@pytest.mark.parametrize("name", presets())
def test_presets_are_whole_and_say_where_they_are_from(name):
    """Every key is a field, none that the recipe decides is left to a default, and a comment names the source."""
    text = (PRESETS / f"{name}.toml").read_text()
    config = resolve({}, None, name)
    given = tomllib.loads(text)
    assert {key: asdict(config)[key] for key in given} == given
    decided = {"data", "labels", "validation", "model", "steps", "batch", "labelled_batch", "optimizer", "lr", "ema"}
    assert decided | {"teacher_lr", "warmup", "uda_weight", "uda_temperature", "smoothing", "finetune_steps"} <= set(
        given
    )
    assert text.startswith("# ")
    assert config.method == "mpl"
    assert config.grad == "exact"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The README of the released code: 0.1 and 0.15 are for 256 images.
        ("cifar10-4k-release", {"lr": 0.1 * 128 / 256, "batch": 7 * 128, "uda_weight": 8.0, "student_wait": 3000}),
        ("imagenet-10pct-release", {"lr": 0.1 * 1024 / 256, "teacher_lr": 0.15 * 1024 / 256, "batch": 15 * 1024}),
        # The paper's appendix and its section on finetuning.
        ("cifar10-4k", {"lr": 0.3, "teacher_lr": 0.125, "steps": 10**6, "finetune_lr": 1e-5, "finetune_batch": 512}),
        ("imagenet-10pct", {"finetune_steps": 2000, "labelled_batch": 2048, "uda_weight": 16.0}),
        ("imagenet-jft", {"labelled_batch": 2048, "batch": 16_384, "steps": 10**6, "finetune_steps": 20_000}),
        ("svhn-1k", {"labels": 1000, "uda_weight": 2.5, "uda_temperature": 1.25}),
        ("cifar10-250", {"labels": 250, "lr": 0.3}),
        ("cifar10-40", {"labels": 40, "lr": 0.3}),
    ],
)
def test_presets_have_the_published_numbers(name, expected):
    config = asdict(resolve({}, None, name))
    assert {key: config[key] for key in expected} == pytest.approx(expected)


def test_every_preset_is_held_to_its_numbers():
    assert len(presets()) == 8


def test_flags_beat_the_file_and_the_file_beats_the_preset(tmp_path):
    file = tmp_path / "given.toml"
    file.write_text("steps = 3000\nlabels = 100\n")
    config = resolve({"labels": 50}, file, "cifar10-4k")
    assert (config.labels, config.steps, config.lr) == (50, 3000, 0.3)
    with pytest.raises(InputError, match=r"unknown preset 'cifar10-4': did you mean 'cifar10-4k'\?"):
        resolve({}, None, "cifar10-4")
