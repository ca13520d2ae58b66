"""What the members of a population may differ in, and what had better go one by one."""

from dataclasses import fields

import pytest
import torch
from populations import DIGITS, TINY, config, pair

from metapl.registry.errors import InputError
from metapl.training import population
from metapl.training.config import VARYING, TrainConfig
from metapl.training.experiment import prepare

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def test_numbers_and_seeds_may_differ():
    assert len({population.alike(one) for one in (*pair(), config(seed=9))}) == 1


@pytest.mark.parametrize("field", [one for one in fields(TrainConfig) if one.name not in ("seed", *VARYING)])
def test_nothing_else_may(field):
    before = TINY.get(field.name, field.default)
    changed = (
        not before if isinstance(before, bool) else before + 1 if isinstance(before, (int, float)) else before + "x"
    )
    named = {"method": "uda", "on_nonfinite": "skip"}
    other = config(**{field.name: named.get(field.name, changed)})
    assert population.alike(other) != population.alike(config())
    with pytest.raises(ValueError, match="differ in the seed"):
        population.members([config(), other])


@pytest.mark.parametrize("name", [name for name in VARYING if "lr" not in name and name != "uda_temperature"])
def test_a_zero_is_another_program(name):
    assert population.alike(config(**{name: 0.0})) != population.alike(config(**{name: 0.5}))
    assert population.alike(config(**{name: 0.0})) == population.alike(config(**{name: 0.0}, seed=1))


def test_members_share_the_data_and_nobody_is_none():
    first, second = population.members([config(), config(seed=1)])
    assert second.data is first.data
    assert not torch.equal(first.split.labelled, second.split.labelled)
    with pytest.raises(ValueError, match="members of a population"):
        population.members([])
    with pytest.raises(InputError, match="--labels 1 "):
        population.members([config(labels=1)])


REFUSED = [
    ({}, ""),
    (DIGITS, ""),
    ({**DIGITS, "model": "convnet:width=2,depth=1"}, ""),
    ({"method": "reduced"}, "fixed teacher"),
    ({**DIGITS, "augment": "small:magnitude=2"}, "RandAugment"),
]


@pytest.mark.parametrize(("options", "word"), REFUSED)
def test_what_had_better_go_one_by_one(options, word):
    why = population.refuses(population.members([config(**options)]))
    assert bool(why) == bool(word)
    assert word in why


@pytest.mark.parametrize("key", ["model", "teacher_model"])
def test_convolutions_of_large_images_go_one_by_one_on_a_cpu(key):
    experiment = prepare(config(**{**DIGITS, key: "convnet:width=2,depth=1"}))
    large = experiment.data._replace(form=experiment.data.form._replace(shape=(1, 28, 28)))
    assert "convolutions" in population.refuses([experiment._replace(data=large)])
    elsewhere = large._replace(y=large.y.to("meta"))
    assert population.refuses([experiment._replace(data=elsewhere)]) == ""


def test_examples_in_files_go_one_by_one():
    experiment = prepare(config(**DIGITS))
    assert "from files" in population.refuses([experiment._replace(data=experiment.data._replace(x=["a.png"]))])
