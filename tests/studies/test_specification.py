"""A study: its TOML file, the runs it asks for, and one line for whatever is wrong in it."""

import itertools
import tomllib
from dataclasses import asdict, fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metapl.registry.errors import InputError
from metapl.studies import specification
from metapl.training.config import PRESETS, TrainConfig

TEXT = """
seeds = 3
first_seed = 5
against = "other"
reach = 0.9

[common]
data = "moons:points=100"
steps = 40

[over]
labels = [10, 40]
batch = [8, 16]

[arms.one]
grad = "none"

[arms.other]
lr = 1
"""


def write(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_becomes_a_study(tmp_path):
    found = specification.read(write(tmp_path, TEXT))
    assert found.common == {"data": "moons:points=100", "steps": 40}
    assert found.over == {"labels": [10, 40], "batch": [8, 16]}
    assert found.arms == {"one": {"grad": "none"}, "other": {"lr": 1.0}}
    assert type(found.arms["other"]["lr"]) is float
    assert (tuple(found.seeds), found.against, found.reach, found.tune) == ((5, 6, 7), "other", 0.9, {})


def test_what_is_not_given(tmp_path):
    found = specification.read(write(tmp_path, "[arms.b]\n[arms.a]\nlr = 0.2"))
    assert (tuple(found.seeds), found.against) == (tuple(range(8)), "b")
    assert (found.common, found.over, found.tune, found.reach) == ({}, {}, {}, 0.0)


def test_the_example_of_the_module_is_a_study(tmp_path):
    text = "\n".join(line[4:] for line in specification.__doc__.splitlines() if line.startswith("    "))
    found = specification.read(write(tmp_path, text))
    assert (len(found.seeds), found.against, found.over) == (32, "none", {"labels": [10, 40]})
    assert found.reach == 0.99
    assert found.pairs == (("exact", "uda"),)
    assert len(specification.jobs(found)) == 2 * 4 * 32


def test_runs_come_setting_by_setting_arm_by_arm_seed_by_seed(tmp_path):
    jobs = specification.jobs(specification.read(write(tmp_path, TEXT)))
    order = itertools.product((10, 40), (8, 16), ("one", "other"), (5, 6, 7))
    asked = [(job.condition["labels"], job.condition["batch"], job.arm, job.config.seed) for job in jobs]
    assert asked == list(order)
    assert [(job.config.labels, job.config.batch) for job in jobs] == [one[:2] for one in asked]
    assert jobs[1].name == "labels=10, batch=8-one-seed=6"
    assert len({job.name for job in jobs}) == len(jobs)


def test_what_a_run_is_trained_with(tmp_path):
    """What the file says, and nothing else but two defaults of its own: no baselines, ten looks."""
    jobs = specification.jobs(specification.read(write(tmp_path, TEXT)))
    shared = {"data": "moons:points=100", "steps": 40, "labels": 40, "batch": 8, "seed": 7}
    expected = {"one": {"grad": "none"}, "other": {"lr": 1.0}}
    for job in jobs:
        if (job.config.labels, job.config.batch, job.config.seed) == (40, 8, 7):
            wanted = TrainConfig(**shared, **expected.pop(job.arm), baselines=False, report_every=4)
            assert asdict(job.config) == asdict(wanted)
    assert not expected


def test_the_arms_of_a_seed_differ_in_what_makes_them_alone(tmp_path):
    jobs = specification.jobs(specification.read(write(tmp_path, TEXT)))
    pairs = [[asdict(job.config) for job in jobs if job.arm == arm] for arm in ("one", "other")]
    for one, other in zip(*pairs, strict=True):
        assert {key for key in one if one[key] != other[key]} == {"grad", "lr"}


@pytest.mark.parametrize(
    ("common", "every"), [("", 150), ("steps = 7", 1), ("steps = 99", 9), ("report_every = 33", 33)]
)
def test_looks_on_the_way(tmp_path, common, every):
    (job,) = specification.jobs(specification.read(write(tmp_path, f"seeds = 1\n[common]\n{common}\n[arms.a]")))
    assert job.config.report_every == every


def test_baselines_may_be_asked_for_and_arms_have_the_last_word(tmp_path):
    text = "seeds = 1\n[common]\nbaselines = true\nlr = 0.5\n[arms.a]\n[arms.b]\nlr = 0.25"
    jobs = specification.jobs(specification.read(write(tmp_path, text)))
    assert [(job.config.baselines, job.config.lr) for job in jobs] == [(True, 0.5), (True, 0.25)]


def test_a_preset_can_be_an_arm(tmp_path):
    text = 'seeds = 1\n[common]\nema = 0.5\n[arms.a]\npreset = "flexmatch"\n[arms.b]\nlr = 0.25\npreset = "adamatch"\n'
    found = specification.read(write(tmp_path, text + 'threshold = "none"'))
    assert found.arms["a"] == tomllib.loads((PRESETS / "flexmatch.toml").read_text())
    first, second = (job.config for job in specification.jobs(found))
    assert (first.threshold, first.ema, second.lr) == ("flexible:warmup=true", 0.999, 0.25)
    assert (second.alignment, second.threshold, second.consistency_target) == ("adamatch", "none", "soft")
    assert tomllib.loads(specification.dump(found))["arms"]["a"]["method"] == "uda"
    with pytest.raises(InputError, match=r"unknown preset 'flexmach': did you mean 'flexmatch'\?"):
        specification.read(write(tmp_path, '[arms.a]\npreset = "flexmach"'))


def test_combinations():
    found = specification.combinations({"grad": ["none", "exact"], "lr": [0.1, 0.2]})
    assert list(found) == ["grad=none, lr=0.1", "grad=none, lr=0.2", "grad=exact, lr=0.1", "grad=exact, lr=0.2"]
    assert list(found.values())[2] == {"grad": "exact", "lr": 0.1}
    assert specification.combinations({"balanced": [True]}) == {"balanced=True": {"balanced": True}}


# ---------------------------------------------------------------- there and back

FIELDS = {field.name: type(field.default) for field in fields(TrainConfig)}
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NUMBERS = st.floats(0.0, 1.0, exclude_min=True)
VALUES = {
    "data": TEXTS,
    "model": TEXTS,
    "labels": st.integers(0, 10**6),
    "batch": st.integers(1, 10**6),
    "balanced": st.booleans(),
    "lr": st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    "feedback_weight": st.floats(allow_nan=False, allow_infinity=False),
    "ema": NUMBERS,
    "smoothing": NUMBERS,
    "uda_threshold": NUMBERS,
}


def some(names):
    return st.fixed_dictionaries({}, optional={name: VALUES[name] for name in names})


@st.composite
def studies(draw):
    """Keys of three kinds, so that no arm says again what a setting says."""
    over = st.fixed_dictionaries(
        {}, optional={name: st.lists(VALUES[name], min_size=1, max_size=3, unique=True) for name in ("labels", "ema")}
    )
    arms = draw(st.dictionaries(TEXTS, some(["lr", "model", "smoothing"]), min_size=1, max_size=4))
    return {
        "seeds": draw(st.integers(1, 9)),
        "first_seed": draw(st.integers(-5, 10**9)),
        "reach": draw(st.one_of(NUMBERS, st.integers(0, 1))),
        "against": draw(st.sampled_from(["", *arms])),
        "pairs": draw(st.lists(st.sampled_from(list(itertools.permutations(arms, 2))).map(list), max_size=3))
        if len(arms) > 1
        else [],
        "common": draw(some(["data", "batch", "balanced", "feedback_weight", "uda_threshold"])),
        "over": draw(over),
        "arms": arms,
        "tune": draw(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.lists(NUMBERS), max_size=2)),
    }


@given(tables=studies(), comment=st.text("ab \n#é🙂"))
@settings(deadline=None, derandomize=True, database=None, max_examples=80)
def test_any_study_reads_back(tmp_path_factory, tables, comment):
    about = specification.build(tables, "here")
    read = specification.read(write(tmp_path_factory.getbasetemp(), specification.dump(about)))
    assert read == about
    assert [list(table) for table in (read.arms, read.over)] == [list(table) for table in (about.arms, about.over)]
    assert specification.jobs(read) == specification.jobs(about)
    assert specification.dump(read) == specification.dump(about)


@pytest.mark.parametrize("character", ["é", "\x7f", "\n", '"', "\\", "\u2028", "🙂", "a.b", ""])
def test_every_character_reads_back(tmp_path, character):
    about = specification.build({"arms": {character: {"data": character}}}, "here")
    assert specification.read(write(tmp_path, specification.dump(about))) == about


def test_a_comment_and_tables_of_tables(tmp_path):
    about = specification.build({"arms": {"a": {}}, "tune": {"lr": {"low": 0.1, "high": 1}, "trials": 8}}, "here")
    text = specification.dump(about, "Found on Monday.\n\nTwo seeds.")
    assert text.startswith("# Found on Monday.\n# \n# Two seeds.\nseeds = 8\n")
    assert specification.read(write(tmp_path, text)) == about
    assert tomllib.loads(text)["tune"] == {"lr": {"low": 0.1, "high": 1}, "trials": 8}


def test_seeds_must_be_in_a_row_to_be_written():
    about = specification.build({"arms": {"a": {}}}, "here")._replace(seeds=(0, 2))
    with pytest.raises(ValueError, match="not in a row"):
        specification.dump(about)


# ---------------------------------------------------------------- what is wrong

BAD = [
    ("", r"study\.toml: nothing to compare: give each arm a table"),
    ("[arms]", r"study\.toml: nothing to compare"),
    ("arms = 3", r"study\.toml: arms must be a table \[arms\]"),
    ("[arms]\na = 3", r"study\.toml: 3 must be a table of flags"),
    ("[arms.a]\nlrr = 1.0", r"unknown key in .*study\.toml 'lrr': did you mean 'lr'\?"),
    ("[arms.a]\nlr = 'x'", r"study\.toml: lr = 'x' must be a number"),
    ("[arms.a]\nsteps = 2.0", r"study\.toml: steps = 2\.0 must be a whole number"),
    ("[arms.a]\nlr = -1.0", r"study\.toml: .*'a': lr = -1\.0 must be more than 0"),
    ("[arms.a]\nlr = nan", r"study\.toml: .*'a': lr = nan must be a finite number"),
    ("[arms.a]\nmethod = 'mlp'", r"study\.toml: .*'a': unknown method 'mlp': did you mean 'mpl'"),
    ("[common]\nsteps = 5\n[arms.a]\nwarmup = 5", r"study\.toml: .*'a': warmup = 5 .*steps = 5"),
    ("[common]\nstep = 5\n[arms.a]", r"unknown key in .*study\.toml 'step'"),
    ("common = 'x'\n[arms.a]", r"study\.toml: common must be a table \[common\]"),
    ("[over]\nlabels = 10\n[arms.a]", r"study\.toml: labels in \[over\] must be a list of values"),
    ("[over]\nlabels = []\n[arms.a]", r"study\.toml: labels in \[over\] must be a list of values"),
    ("[over]\nlabels = [10, 'x']\n[arms.a]", r"study\.toml: labels = 'x' must be a whole number"),
    ("[over]\nlable = [10]\n[arms.a]", r"unknown key in .*study\.toml 'lable'"),
    ("over = [1]\n[arms.a]", r"study\.toml: over must be a table"),
    ("tune = 1\n[arms.a]", r"study\.toml: tune must be a table"),
    ("seed = 3\n[arms.a]", r"unknown key in .*study\.toml 'seed': did you mean 'seeds'"),
    ("seeds = 0\n[arms.a]", r"study\.toml: seeds must be at least 1"),
    ("seeds = -1\n[arms.a]", r"study\.toml: seeds must be at least 1"),
    ("seeds = true\n[arms.a]", r"study\.toml: seeds must be a whole number"),
    ("seeds = [1, 2]\n[arms.a]", r"study\.toml: seeds must be a whole number"),
    ("first_seed = 1.0\n[arms.a]", r"study\.toml: first_seed must be a whole number"),
    ("against = 'b'\n[arms.a]", r"unknown arm to compare with 'b': choose from a"),
    ("against = 3\n[arms.a]", r"study\.toml: against must be the name of an arm"),
    ("pairs = 3\n[arms.a]", r"study\.toml: pairs must be a list of pairs of arms"),
    ("pairs = ['a']\n[arms.a]", r"study\.toml: 'a' in pairs must be two arms"),
    ("pairs = [['a', 'b', 'c']]\n[arms.a]", r"study\.toml: .* in pairs must be two arms"),
    ("pairs = [['a', 'a']]\n[arms.a]", r"study\.toml: .* in pairs must be two arms"),
    ("pairs = [['a', 'b']]\n[arms.a]", r"unknown arm in pairs of .*study\.toml 'b': choose from a"),
    ("pairs = [['a', 3]]\n[arms.a]", r"unknown arm in pairs of .*study\.toml '3': choose from a"),
    ("reach = 99\n[arms.a]", r"study\.toml: reach must be a share from 0 to 1"),
    ("reach = nan\n[arms.a]", r"study\.toml: reach must be a share from 0 to 1"),
    ("reach = '1'\n[arms.a]", r"study\.toml: reach must be a number"),
    ("reach = true\n[arms.a]", r"study\.toml: reach must be a number"),
    ("[arms.a", r"study .*study\.toml: not valid TOML"),
    # What a study decides itself, or cannot keep apart.
    ("[common]\nseed = 3\n[arms.a]", r"study\.toml: .*seed"),
    ("[arms.a]\nseed = 3", r"study\.toml: .*seed"),
    ("[over]\nseed = [3]\n[arms.a]", r"study\.toml: .*seed"),
    ("[common]\nlog = 'tensorboard'\n[arms.a]", r"study\.toml: .*log"),
    ("[over]\nlabels = [10, 20]\n[arms.a]\nlabels = 40", r"study\.toml: .*labels"),
    ("[over]\nlabels = [10, 10]\n[arms.a]", r"study\.toml: .*labels"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text.replace("\n", " ") for text, _ in BAD])
def test_bad_input_is_one_line_that_says_where(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as raised:
        specification.read(write(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"study .*nowhere\.toml: cannot be read"):
        specification.read(tmp_path / "nowhere.toml")
    (tmp_path / "study.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"study .*study\.toml: cannot be read"):
        specification.read(tmp_path / "study.toml")


def test_the_arm_at_fault_may_come_last(tmp_path):
    with pytest.raises(InputError, match=r"study\.toml: .*'b': ema = 2"):
        specification.read(write(tmp_path, "[over]\nlabels = [10, 20]\n[arms.a]\n[arms.b]\nema = 2"))
