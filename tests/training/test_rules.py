"""The rules that a configuration names, as the objects of an experiment, of one run and of a population."""

import json

import pytest
import torch
from asserts import assert_close_tree

from metapl import methods
from metapl.core import rng, tree
from metapl.registry.errors import InputError
from metapl.training import experiment, loop, phases, population
from metapl.training.config import TrainConfig, presets, resolve

SMALL = {"data": "digits:noise=0.3", "model": "mlp:width=8,depth=1", "labels": 30, "device": "cpu", "batch": 24}
UNEVEN = {**SMALL, "labels": 33, "validation": 0}
"""Three classes, which the seed chooses, have a label more."""
RULES = [
    {"alignment": "uniform"},
    {"alignment": "marginal:decay=0.5", "prior": "labelled", "threshold": "flexible", "consistency_target": "hard"},
    {"alignment": "adamatch", "threshold": "relative", "consistency_target": "soft"},
    {"alignment": "fair:weight=0.5,decay=0.5", "threshold": "adaptive:decay=0.5", "consistency_target": "hard"},
    {"alignment": "marginal:decay=0.5,targets=false", "threshold": "gaussian:decay=0.5"},
    {"alignment": "uniform", "prior": "labelled", "class_weights": "effective:beta=0.9", "logit_adjustment": 0.5},
    {"alignment": "marginal:decay=0.5", "mixing": "mixup"},
    {"mixing": "cutmix", "threshold": "gaussian"},
]


def test_the_prior(tmp_path):
    one = experiment.prepare(TrainConfig(**UNEVEN, prior="labelled"))
    counts = torch.bincount(one.data.y[one.split.labelled], minlength=10)
    assert torch.equal(one.counts, counts)
    assert len(counts.unique()) > 1
    torch.testing.assert_close(one.rules.prior(one.counts), counts / 33.0, check_dtype=False)
    assert experiment.prepare(TrainConfig(**SMALL, prior="uniform")).rules.prior(counts).tolist() == [0.1] * 10
    default = experiment.prepare(TrainConfig(**SMALL)).rules.prior
    torch.testing.assert_close(default(counts), (counts + 4) / (33.0 + 40.0), check_dtype=False)
    assert default(torch.full((10,), 3)).tolist() == pytest.approx([0.1] * 10)
    given = [0.19, *[0.09] * 9]
    path = tmp_path / "prior.json"
    path.write_text(json.dumps(dict(zip(one.data.form.classes, given, strict=True))))
    assert experiment.prepare(TrainConfig(**SMALL, prior=str(path))).rules.prior(counts).tolist() == given


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alignment": "unifrom"}, r"unknown alignment 'unifrom': did you mean 'uniform'\?"),
        ({"alignment": "marginal:decay=1"}, r"alignment 'marginal:decay=1': decay=1\.0 must be"),
        ({"threshold": "gaussian:sigmas=0"}, r"threshold 'gaussian:sigmas=0': sigmas=0\.0 must be positive"),
        ({"threshold": "fixed:tau=1"}, r"threshold 'fixed' takes no options"),
        ({"mixing": "mixup:alpha=-1"}, r"mixing 'mixup:alpha=-1': alpha=-1\.0 must be positive"),
        ({"consistency_target": "argmax"}, r"unknown consistency target 'argmax'"),
        ({"class_weights": "effective:beta=1"}, r"class weights 'effective:beta=1': beta=1\.0 must be"),
        ({"prior": "nowhere.json"}, r"prior = nowhere\.json is no file: name one, or choose from estimated, uniform"),
    ],
)
def test_bad_rules(options, message):
    with pytest.raises(InputError, match=message):
        experiment.prepare(TrainConfig(**SMALL, **options))


def test_a_rule_knows_the_pool_of_the_split():
    """`flexible` remembers each example of the pool, and waits for those of the unlabelled set alone."""
    one = experiment.prepare(TrainConfig(**SMALL, threshold="flexible", labelled_in_unlabelled=False, validation=20))
    memory = one.recipe.consistency.init(torch.zeros(()))
    assert len(memory.threshold) == len(one.data.x)
    assert len(one.split.unlabelled) < len(one.data.x)
    batch = phases.batches(one)(0)
    state = loop.start(phases.prepare_phase(one, methods.find("uda").phases[0], {})).state
    after, _ = phases.prepare_phase(one, methods.find("uda").phases[0], {}).method.step(state, batch, rng.key(0))
    said = torch.nonzero(after.memory.threshold >= 0).flatten()
    assert set(said.tolist()) <= set(batch.unlabelled.tolist())


@pytest.mark.parametrize("method", ["uda", "mpl"])
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(map(str, rules.values())))
def test_a_population_is_its_members(method, rules):
    """Of splits whose shares of the classes differ, with everything that is remembered, over several steps."""
    configs = [TrainConfig(**UNEVEN, **rules, method=method, uda_threshold=0.3, seed=seed) for seed in (0, 1)]
    members = population.members(configs)
    assert not torch.equal(members[0].counts, members[1].counts)
    spec = methods.find(method).phases[0]
    together = population.together(members, spec, {})
    keys = torch.stack([one.keys.of(spec.name) for one in members])
    state, at = together.init(keys), population.batches(members, spec, together)
    for step in range(4):
        state, _ = together.step(state, at(step), rng.fold_in(keys, step))
    for index, one in enumerate(members):
        phase = phases.prepare_phase(one, spec, {})
        alone = phase.method.init(keys[index])
        start = alone.memory if method == "uda" else alone.consistency
        for step in range(4):
            alone, _ = phase.method.step(alone, phase.batches(step), rng.fold_in(keys[index], step))
        found = population.member(state, index)
        assert_close_tree(found, alone, rtol=2e-4, atol=1e-6)
        remembered = alone.memory if method == "uda" else alone.consistency
        moved = [not torch.equal(a, b) for a, b in zip(tree.leaves(remembered), tree.leaves(start), strict=True)]
        assert all(moved)  # every running statistic runs


@pytest.mark.parametrize("name", [name for name in presets() if resolve({}, None, name).method == "uda"])
def test_every_preset_of_rules_is_trained(name):
    config = resolve({**SMALL, "steps": 3, "report_every": 3, "baselines": False}, None, name)
    result = phases.finish(phases.run(experiment.prepare(config)))
    assert list(result.test) == ["uda"]


def test_the_fixed_teacher_of_the_reduced_method_has_them_too():
    config = TrainConfig(**SMALL, method="reduced", alignment="marginal:decay=0.5")
    spec = methods.find("reduced").phases[0]
    assert spec.name == "fixed"
    phase = phases.prepare_phase(experiment.prepare(config), spec, {})
    state, _ = phase.method.step(loop.start(phase).state, phase.batches(0), rng.key(1))
    assert not torch.equal(state.memory.alignment, loop.start(phase).state.memory.alignment)
