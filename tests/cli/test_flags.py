"""Errors speak of fields, and the command line of flags."""

from dataclasses import fields

import pytest

from metapl.cli.flags import spoken
from metapl.registry.errors import InputError
from metapl.training.config import TrainConfig, resolve


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("batch = 0 must be at least 1", "batch"), "--batch 0 must be at least 1"),
        (InputError("batch = 0 must be at least 1"), "batch = 0 must be at least 1"),
        (
            InputError("microbatch = 4: give batch_norm_batch = 4", "batch_norm_batch"),
            "microbatch = 4: give --batch-norm-batch 4",
        ),
        (InputError("mpl: 'lr' is bad: lower lr or clip", "lr", "clip"), "mpl: '--lr' is bad: lower lr or --clip"),
        (InputError("lower teacher_lr or lr, lr", "lr"), "lower teacher_lr or --lr, lr"),
        (InputError("out = /out/a.b exists: out", "out"), "--out /out/a.b exists: out"),
        (InputError("grad = a, then grad = b", "grad"), "--grad a, then --grad b"),
    ],
)
def test_the_names_of_fields_become_flags(error, expected):
    assert spoken(error) == expected


@pytest.mark.parametrize("name", [one.name for one in fields(TrainConfig) if type(one.default) is float])
def test_an_error_of_a_field_names_it(name):
    with pytest.raises(InputError) as refused:
        resolve({name: float("nan")})
    assert refused.value.fields == (name,)
    assert spoken(refused.value) == f"--{name.replace('_', '-')} nan must be a finite number"
