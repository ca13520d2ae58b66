"""A configuration turned into objects: what decays, which split, which preset."""

import json
import tomllib
from dataclasses import asdict

import pytest
import torch
from torch import nn

from metapl import methods
from metapl.core import rng
from metapl.data.split import to_json
from metapl.methods import METHODS
from metapl.nn import functional
from metapl.registry.errors import InputError
from metapl.training import experiment, phases
from metapl.training.automatic import settle
from metapl.training.config import PRESETS, VARYING, TrainConfig, presets, resolve
from metapl.training.keys import NUMBERED
from metapl.training.optimizers import rule


def normalised():
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


@pytest.mark.parametrize(
    "text", ["sgd:momentum=0.9,weight_decay=0.1", "adamw:weight_decay=0.1", "rmsprop:weight_decay=0.1"]
)
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_weight_decay_leaves_normalisation_alone(text, clip):
    """Two steps of torch.optim with two groups, clipped over all parameters together."""
    config = TrainConfig(optimizer=text, clip=clip)
    model = functional.from_module(normalised)
    params, _ = model.init(rng.key(0))
    optimizer = rule(config.optimizer, config.clip)(0.05, model)
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
    kind, options = kinds[text.partition(":")[0]]
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
    assert rule(TrainConfig().optimizer)(0.1, model).rule.name == "sgd"
    model = functional.from_module(normalised)
    assert rule("sgd")(0.1, model).rule.name == "sgd"
    assert rule(TrainConfig().optimizer)(0.1, model).rule.name == "groups"


def test_a_split_can_be_that_of_another_run(tmp_path):
    one = experiment.prepare(TrainConfig(labels=30, seed=7))
    file = tmp_path / "split.json"
    file.write_text(json.dumps(to_json(one.split)))
    other = experiment.prepare(TrainConfig(seed=1, split=str(file)))
    assert all(torch.equal(a, b) for a, b in zip(one.split, other.split, strict=True))
    with pytest.raises(
        InputError,
        match=r"split\.json: \w+\[\d+\].* is \d+, and must be a whole number from 0 to 99: name .*same data$",
    ):
        experiment.prepare(TrainConfig(data="moons:points=100", split=str(file)))
    with pytest.raises(InputError, match=r"missing\.json cannot be read"):
        experiment.prepare(TrainConfig(split=str(tmp_path / "missing.json")))


RECIPES = [name for name in presets() if resolve({}, None, name).method == "mpl"]
RULES = [name for name in presets() if name not in RECIPES]


@pytest.mark.parametrize("name", RECIPES)
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
    assert (config.grad, config.guide, config.alignment) == ("exact", "none", "none")


PUBLISHED = {
    "fixmatch": ("none", "fixed", "hard", 0.95),
    "flexmatch": ("none", "flexible:warmup=true", "hard", 0.95),
    "freematch": ("fair:weight=0.05,decay=0.999", "adaptive:decay=0.999", "hard", 0.6),
    "softmatch": ("marginal:decay=0.999,targets=false", "gaussian:decay=0.999,sigmas=2", "hard", 0.6),
    "adamatch": ("adamatch", "relative", "soft", 0.9),
}
"""Alignment, threshold, target and τ of each paper; 0.6 is the default, of rules that take no τ."""


@pytest.mark.parametrize("name", RULES)
def test_presets_of_consistency_have_the_published_rules(name):
    config = resolve({}, None, name)
    rules = (config.alignment, config.threshold, config.consistency_target, config.uda_threshold)
    assert rules == PUBLISHED[name]
    assert (config.method, config.uda_weight, config.ema, config.smoothing) == ("uda", 1.0, 0.999, 0.0)
    assert config.guide == "none"
    given = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    assert {key: asdict(config)[key] for key in given} == given
    assert not {"model", "batch", "steps", "lr", "data", "labels", "optimizer"} & set(given)
    assert (PRESETS / f"{name}.toml").read_text().startswith("# ")


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
    assert len(RECIPES) == 8
    assert set(RULES) == set(PUBLISHED)


def test_flags_beat_the_file_and_the_file_beats_the_preset(tmp_path):
    file = tmp_path / "given.toml"
    file.write_text("steps = 3000\nlabels = 100\n")
    config = resolve({"labels": 50}, file, "cifar10-4k")
    assert (config.labels, config.steps, config.lr) == (50, 3000, 0.3)
    with pytest.raises(InputError, match=r"unknown preset 'cifar10-4': did you mean 'cifar10-4k'\?"):
        resolve({}, None, "cifar10-4")


SMALL = {"data": "moons:points=60", "model": "mlp:width=3,depth=1", "labels": 8, "device": "cpu"}
LIKE = {"lr": 0.5, "ema": 0.25, "feedback_weight": 3.0}


@pytest.mark.parametrize("options", [{"seed": 4}, {"seed": 4, **LIKE}, LIKE, {"balanced": False, "seed": 2}])
def test_a_member_is_prepared_as_if_it_were_alone(options):
    """But for the data, which is not read again."""
    shared = {**SMALL, **{key: value for key, value in options.items() if key == "balanced"}}
    like, config = experiment.prepare(TrainConfig(**shared)), TrainConfig(**{**shared, **options})
    found, alone = experiment.member(like, config), experiment.prepare(config)
    assert found.config == alone.config == settle(config, like.data.form)
    assert found.data is like.data
    assert found.models is like.models
    assert (found.labels, dict(found.varied), found.device) == (alone.labels, {}, alone.device)
    assert all(torch.equal(one, other) for one, other in zip(found.keys, alone.keys, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(found.split, alone.split, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(found.data[:4], alone.data[:4], strict=True))
    same = all(torch.equal(one, other) for one, other in zip(found.keys, like.keys, strict=True))
    assert same == ("seed" not in options)


def test_the_recipe_knows_how_many_labels_there_are():
    """Those to train on, without the validation part."""
    for labels, a_class in ((8, 4.0), (2, 1.0)):
        config = TrainConfig(**{**SMALL, "labels": labels, "validation": 10})
        assert experiment.prepare(config).recipe.labelled == a_class


def test_a_member_can_have_the_split_of_another_run(tmp_path):
    (tmp_path / "split.json").write_text(json.dumps(to_json(experiment.prepare(TrainConfig(**SMALL, seed=9)).split)))
    configs = [TrainConfig(**SMALL, split=str(tmp_path / "split.json"), seed=seed) for seed in (0, 1)]
    first = experiment.prepare(configs[0])
    second = experiment.member(first, configs[1])
    assert all(torch.equal(one, other) for one, other in zip(first.split, second.split, strict=True))
    assert first.keys.of("mpl") != second.keys.of("mpl")


def test_numbers_that_vary_take_the_place_of_those_of_the_configuration():
    one = experiment.prepare(TrainConfig(**SMALL, **LIKE))
    assert {name: one.number(name) for name in LIKE} == LIKE
    varied = {"ema": torch.tensor(0.75), "lr": torch.tensor(0.125)}
    other = one._replace(varied=varied)
    assert other.number("ema") is varied["ema"]
    assert other.number("lr") is varied["lr"]
    assert other.number("feedback_weight") == 3.0
    assert other.recipe.ema is varied["ema"]
    assert (other.recipe.feedback_weight, other.recipe.uda_weight) == (3.0, 1.0)
    assert one.recipe.ema == 0.25


@pytest.mark.parametrize("name", VARYING)
def test_every_number_that_may_vary_is_a_float_that_reaches_the_losses_or_the_optimisers(name):
    """Or a population would leave it out, and its members be the same."""
    assert type(getattr(TrainConfig(), name)) is float
    tensor = torch.tensor(0.5)
    changed = experiment.prepare(TrainConfig(**SMALL))._replace(varied={name: tensor})
    assert changed.number(name) is tensor
    assert getattr(changed.recipe, name, tensor) is tensor
    assert hasattr(changed.recipe, name) or name in ("lr", "teacher_lr", "finetune_lr")


@pytest.mark.parametrize(("weight", "consistent"), [(0.0, False), (0.5, True), (torch.tensor(0.5), True)])
def test_a_weight_that_varies_is_a_consistency_loss(weight, consistent):
    found = experiment.prepare(TrainConfig(**SMALL)).recipe._replace(uda_weight=weight)
    assert found.consistent is consistent


PLANS = [
    ({"baselines": True}, [*methods.PANEL, "supervised", "pseudo-labels", "uda", "mpl", "finetune"]),
    ({"baselines": True, "uda_weight": 0.0}, [*methods.PANEL, "supervised", "pseudo-labels", "mpl", "finetune"]),
    ({}, ["mpl", "finetune"]),
    ({"finetune_steps": 0}, ["mpl"]),
    ({"method": "reduced"}, ["fixed", "reduced", "finetune"]),
    *(({"method": name}, [name]) for name in ("uda", "supervised")),
    ({"method": "pseudo-labels", "baselines": True}, [*methods.PANEL, "supervised", "pseudo-labels"]),
    ({"method": "logistic", "baselines": True}, ["self-training", "spreading", "logistic"]),
    ({"method": "spreading", "baselines": False}, ["spreading"]),
    ({"method": "self-training", "baselines": False}, ["self-training"]),
    ({"method": "consensus", "baselines": True}, [*methods.PANEL, "consensus"]),
    ({"method": "uda", "guide": "consensus"}, ["consensus", "uda"]),
    ({"method": "uda", "guide": "consensus", "uda_weight": 0.5}, ["consensus", "uda"]),
    ({"guide": "consensus", "uda_weight": 0.0}, ["mpl", "finetune"]),
    ({"method": "supervised", "guide": "consensus"}, ["supervised"]),
    ({"method": "uda", "guide": "spreading", "baselines": True}, [*methods.PANEL, "supervised", "uda"]),
]


@pytest.mark.parametrize(("options", "names"), PLANS)
def test_the_phases_of_a_run(options, names):
    shared = {**SMALL, "method": "mpl", "guide": "none", "baselines": False, "unroll": 3, "finetune_batch": 2}
    given = TrainConfig(**{**shared, **options})
    parts, prepared = methods.plan(given), experiment.prepare(given)
    assert [part.name for part in parts] == names
    places = ["split", "batches", "supervised", "pseudo-labels", "uda", "mpl", "finetune", "reduced", "fixed"]
    keys = dict(zip(places, rng.split(rng.key(given.seed), 9), strict=True))
    for part in parts:
        last = part.name == "finetune"
        assert getattr(given, part.steps) == (given.finetune_steps if last else given.steps)
        assert phases.unroll(given, part) == (3 if part.name in ("mpl", "reduced") else 1)
        assert getattr(given, part.labelled_batch) == (2 if last else given.labelled_batch)
        assert part.fit or prepared.keys.of(part.name) == keys[part.name]
    assert (prepared.keys.split, prepared.keys.batches) == (keys["split"], keys["batches"])


def test_a_phase_of_another_name_has_a_key_of_its_own():
    keys = experiment.prepare(TrainConfig(**SMALL)).keys
    names = ["mine", "yours", *NUMBERED]
    assert len({int(key) for key in (*keys, *map(keys.of, names))}) == 3 + len(names)
    assert keys.of("mine") == experiment.prepare(TrainConfig(**SMALL, lr=0.7)).keys.of("mine")
    assert keys.of("mine") != experiment.prepare(TrainConfig(**SMALL, seed=1)).keys.of("mine")


def test_a_method_without_what_it_needs_is_refused():
    with pytest.raises(InputError, match="method = uda with uda_weight = 0 is supervised learning"):
        experiment.prepare(TrainConfig(**SMALL, method="uda", uda_weight=0.0))


def test_every_method_has_its_phases_above():
    assert {one.get("method", "mpl") for one, _ in PLANS} == set(METHODS)


@pytest.mark.parametrize(
    ("gpus", "rank", "expected"), [(0, "1", "cpu"), (2, "1", "cuda:1"), (2, "3", "cuda:1"), (4, None, "cuda:0")]
)
def test_processes_of_torchrun_have_a_gpu_each(monkeypatch, gpus, rank, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert str(experiment.pick_device("auto")) == expected
