"""The configuration: defaults, then the file, then flags."""

import dataclasses
import math
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metapl.methods import METHODS
from metapl.methods.base import Recipe
from metapl.registry.errors import InputError
from metapl.training import config, rules
from metapl.training.config import TrainConfig, resolve
from metapl.training.experiment import prepare

FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}
NUMBERS = {name: field for name, field in FIELDS.items() if type(field.default) in (int, float)}


def write(folder, text):
    file = folder / "given.toml"
    file.write_text(text)
    return file


def test_nothing_given_means_the_defaults():
    assert resolve({}) == TrainConfig()


def test_the_file_overrides_defaults_and_flags_override_the_file(tmp_path):
    file = write(tmp_path, 'steps = 7\nlr = 0.25\nmethod = "uda"\n')
    found = resolve({"lr": 0.5, "labels": 20}, file)
    assert found == TrainConfig(steps=7, lr=0.5, method="uda", labels=20)


def test_an_empty_file_changes_nothing(tmp_path):
    assert resolve({}, write(tmp_path, "# nothing\n")) == TrainConfig()


def test_a_whole_number_will_do_for_a_number(tmp_path):
    found = resolve({}, write(tmp_path, "lr = 1\n"))
    assert found.lr == 1.0
    assert type(found.lr) is float


def test_a_dump_reads_back(tmp_path):
    given = TrainConfig(
        data="moons:points=50", lr=1e-7, seed=-3, baselines=False, teacher_model="mlp:width=4", clip=1e16
    )
    assert resolve({}, write(tmp_path, config.dump(given))) == given


@given(
    lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    feedback_weight=st.floats(allow_nan=False, allow_infinity=False),
    seed=st.integers(),
    balanced=st.booleans(),
    data=st.text(string.printable),
)
@settings(deadline=None, derandomize=True, database=None, max_examples=100)
def test_any_configuration_reads_back(tmp_path_factory, **values):
    given = TrainConfig(**values)
    file = tmp_path_factory.getbasetemp() / "config.toml"
    file.write_text(config.dump(given))
    assert resolve({}, file) == given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "stepz = 3",
            r"unknown key in .*given\.toml 'stepz': did you mean 'steps'\? choose from adapt, alignment, augment",
        ),
        ("[train]\nsteps = 3", r"unknown key in .*given\.toml 'train'"),
        ('steps = "3"', r"given\.toml: steps = '3' must be a whole number, as in steps = "),
        ("steps = 3.0", r"given\.toml: steps = 3\.0 must be a whole number"),
        ("steps = true", r"given\.toml: steps = True must be a whole number"),
        ("balanced = 1", r"given\.toml: balanced = 1 must be true or false, as in balanced = true"),
        ("lr = true", r"given\.toml: lr = True must be a number"),
        ("method = 3", r"given\.toml: method = 3 must be a text"),
        ("steps = [3]", r"given\.toml: steps = \[3\] must be a whole number"),
        ("steps = ", r"--config .*given\.toml: not valid TOML"),
        ("lr = nan", r"lr = nan must be a finite number"),
        ("labels = 3\nlabels = 4", r"--config .*given\.toml: not valid TOML"),
    ],
)
def test_bad_files(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        resolve({}, write(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path):
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "none.toml", tmp_path, binary):
        with pytest.raises(InputError, match=rf"^--config {file}: cannot be read .*: give a TOML file$"):
            resolve({}, file)


def test_a_good_flag_mends_a_value_that_is_out_of_range_in_the_file(tmp_path):
    assert resolve({"steps": 5}, write(tmp_path, "steps = 0\n")).steps == 5


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("validation", -1, -2),
        ("steps", 1, 0),
        ("batch", 1, 0),
        ("labelled_batch", 1, 0),
        ("lr", 1e-9, 0.0),
        ("teacher_lr", 1e-9, -0.1),
        ("warmup", 0, -1),
        ("student_wait", 0, -1),
        ("clip", 0.0, -1.0),
        ("uda_weight", 0.0, -0.5),
        ("uda_temperature", 1e-9, 0.0),
        ("uda_threshold", 0.0, -0.1),
        ("uda_threshold", 1.0, 1.1),
        ("uda_ramp", 0, -1),
        ("smoothing", 0.0, -0.1),
        ("smoothing", 1.0, 1.1),
        ("ema", 0.0, -0.1),
        ("ema", 1.0, 1.1),
        ("finetune_steps", 0, -1),
        ("finetune_lr", 1e-9, 0.0),
    ],
)
def test_limits(name, good, bad):
    assert getattr(TrainConfig(**{name: good}), name) == good
    with pytest.raises(InputError, match=rf"^{name} = {bad} must be (at least|at most|more than) -?[\d.]+$"):
        TrainConfig(**{name: bad})


@pytest.mark.parametrize("name", sorted(name for name in NUMBERS if type(NUMBERS[name].default) is float))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_must_be_finite(name, value):
    with pytest.raises(InputError, match=rf"^{name} = {value} must be a finite number$"):
        TrainConfig(**{name: value})


def test_methods():
    for method in METHODS:
        assert TrainConfig(method=method).method == method
    with pytest.raises(InputError, match=r"^unknown method 'mlp': did you mean 'mpl'\?"):
        TrainConfig(method="mlp")
    with pytest.raises(InputError, match=r"^unknown method 'atuo': did you mean 'auto'\?"):
        TrainConfig(method="atuo")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 10, "warmup": 10}, "warmup = 10 and student_wait = 0 leave nothing of steps = 10"),
        ({"steps": 10, "warmup": 4, "student_wait": 6}, "warmup = 4 and student_wait = 6 leave nothing"),
    ],
)
def test_values_that_do_not_go_together(values, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**values)


def test_every_field_says_what_it_is():
    assert all(field.metadata["help"].endswith((".", "…")) for field in FIELDS.values())


def test_every_number_of_the_recipe_is_in_the_configuration():
    values = {"feedback_weight": 0.5, "uda_ramp": 9, "ema": 0.5, "smoothing": 0.25}
    found = prepare(TrainConfig(**values)).recipe
    built = {"labelled", "consistency", "logit_shift"}  # from the split, and from several fields
    assert set(Recipe._fields) - built <= set(FIELDS)
    assert set(rules.NUMBERS) | {"feedback_size", "class_weights", "guide", "exam"} == set(Recipe._fields) - built
    assert {name: getattr(found, name) for name in values} == values


@pytest.mark.parametrize(("name", "expected"), [("lr", "--lr"), ("labelled_in_unlabelled", "--labelled-in-unlabelled")])
def test_flag(name, expected):
    assert config.flag(name) == expected
