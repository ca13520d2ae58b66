"""`--compile`: one graph a phase, the numbers of steps as they are, and one clear line where there can be no graph.

The truth is the same step without a compiler.
"""

import logging
import shutil
from dataclasses import replace

import pytest
import torch
from asserts import relative_error
from command import invoke
from torch.nn import functional

from metapl import methods
from metapl.core import rng, tree
from metapl.core.collectives import Processes
from metapl.data.augment import base, crops
from metapl.data.augment.randaugment import randaugment
from metapl.data.loader import Batch
from metapl.methods.base import Method
from metapl.registry.errors import InputError
from metapl.training import changes, checkpoint, compiling, loop, lowering, phases, population
from metapl.training.config import TrainConfig, flag
from metapl.training.experiment import prepare

CPU = torch.device("cpu")


def batch(count=4):
    return Batch(torch.ones(count, 2), torch.zeros(count, dtype=torch.int64), torch.ones(3, 2))


def step(state, batch, key):
    new = {name: value + batch.x_labelled.mean() * rng.uniform(key, (2,)) for name, value in state.items()}
    return new, {"loss": sum(value.sum() for value in new.values())}


def compiled(fn=step, phase="uda"):
    return compiling.Compilation(fn, phase, "eager")


def taken(fn, state, steps=3):
    metrics = {}
    for index in range(steps):
        state, metrics = fn(state, batch(), rng.key(index))
    return tree.leaves((state, metrics))


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "metapl"]


def test_a_step_becomes_one_graph_and_its_time_is_said_once():
    state, found = {"a": torch.zeros(2), "b": torch.ones(2)}, compiled()
    assert found.news() is None
    assert relative_error(taken(found.step, state), taken(step, state)) <= 1e-6
    assert found.graphs == 1
    assert found.news() == ("uda", found.seconds)
    assert found.seconds > 0
    assert found.news() is None


def test_tensors_that_are_one_and_then_several_make_no_second_graph(caplog):
    zeros, found = torch.zeros(2), compiled()
    taken(found.step, {"a": zeros, "b": zeros})
    assert (found.graphs, said(caplog)) == (1, [])


def test_phases_with_the_same_code_and_other_sizes_are_no_recompilations(caplog):
    one, other = compiled(), compiled(phase="finetune")
    one.step({"a": torch.zeros(2)}, batch(4), rng.key(0))
    for count in (5, 5):
        other.step({"a": torch.zeros(2)}, batch(count), rng.key(0))
    one.step({"a": torch.zeros(2)}, batch(4), rng.key(0))
    assert (one.graphs, other.graphs, said(caplog)) == (1, 1, [])


def test_a_recompilation_is_warned_of_once_with_the_reason(caplog):
    found = compiled()
    with caplog.at_level(logging.WARNING, "metapl"):
        for count in (4, 5, 6):
            found.step({"a": torch.zeros(2)}, batch(count), rng.key(0))
    assert found.graphs == 3
    (warning,) = said(caplog)
    assert warning.startswith("uda: the step is compiled again, which takes as long as the first time: ")
    assert "x_labelled" in warning
    assert "\n" not in warning


def reads(state, batch, key):
    return (state, {}) if float(batch.x_labelled.sum()) > 0 else step(state, batch, key)


def counts(state, batch, key):
    """torch has an error of its own for this, which is not among those of its compiler."""
    first, _ = batch.x_labelled.split((batch.y_labelled[:2] + 2).tolist())
    return (state, {}) if len(first) else step(state, batch, key)


def refuses(state, batch, key):
    raise InputError("not this one")


@pytest.mark.parametrize(("fn", "words"), [(reads, ""), (counts, ""), (refuses, "(not this one")])
def test_a_step_that_is_no_graph_is_refused_in_one_line(fn, words):
    with pytest.raises(compiling.CannotCompileError) as caught:
        taken(compiled(fn).step, {"a": torch.zeros(2)})
    message = str(caught.value)
    assert message.startswith("compile = true: no graph can be made of a step of uda (")
    assert message.endswith(f"{words}): leave it out")
    assert "\n" not in message


def test_what_goes_wrong_in_a_graph_is_no_fault_of_the_compiler():
    def wrong(state, batch, key):
        torch._assert_async(state["a"].sum() > 0)
        return step(state, batch, key)

    with pytest.raises(RuntimeError, match="Expected"):
        taken(compiled(wrong).step, {"a": torch.zeros(2)})


def test_noise_that_is_no_function_of_the_key_is_refused():
    def noisy(state, batch, key):
        return {"a": functional.dropout(state["a"], 0.5)}, {}

    with pytest.raises(InputError, match=r"^compile = true: uda: the network draws from torch's generator"):
        compiled(noisy).step({"a": torch.ones(9)}, batch(), rng.key(0))


def test_what_is_refused_before_anything_is_trained(monkeypatch):
    config = TrainConfig(compile=True)
    several, one = (Processes(0, count, lambda flat: flat) for count in (2, 1))
    with pytest.raises(InputError, match=r"^compile = true: a step of 2 processes "):
        compiling.require(config, CPU, several)
    compiling.require(TrainConfig(), CPU, several)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None)
        with pytest.raises(InputError, match=r"C\+\+ compiler, and none is found: install g\+\+ or clang"):
            compiling.require(config, CPU, one)
        compiling.require(config, torch.device("cuda"), one)
        done = invoke("train", "--compile", "--method", "uda")
    assert done.code == 2
    assert done.err.startswith("metapl: --compile true needs a C++ compiler")
    monkeypatch.setenv("CXX", "mine")
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "mine" else None)
    compiling.require(config, CPU, one)
    monkeypatch.setenv("CXX", "another")  # the only one that torch then tries, whatever else there is
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "g++" else None)
    with pytest.raises(InputError, match="compiler, and CXX=another, which is not there: install"):
        compiling.require(config, CPU, one)


def test_the_loop_says_it_after_the_first_step_and_leaves_that_out_of_the_rate(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    plain = Method(lambda key: {"a": torch.zeros(2)}, step, lambda state: {}, ("x_labelled",))
    method, news = compiling.taken(TrainConfig(compile=True), plain, "uda")
    phase = loop.Phase("uda", method, lambda step: batch(), 3, rng.key(0), news=news)
    events = [*loop.steps(phase, loop.start(phase), every=3)]
    assert [type(event).__name__ for event in events] == ["Stepped", "Compiled", "Stepped", "Stepped", "Reported"]
    assert events[3].seen == 8
    assert compiling.taken(TrainConfig(), plain, "uda")[0] is plain


def test_a_run_does_not_go_on_compiled_that_was_not():
    then = TrainConfig(method="uda", guide="none")
    assert changes.options(then, replace(then, compile=True), None) == ["compile is True, and was False"]


TINY = {"method": "mpl", "guide": "none", "steps": 5, "finetune_steps": 3, "baselines": False, "device": "cpu"}
TINY |= {"model": "mlp:width=8,depth=1", "labels": 20, "report_every": 5}


def test_members_that_make_no_graph_together_train_one_after_another(monkeypatch):
    def run(experiments, since=None):
        raise compiling.CannotCompileError("compile = true: no graph")
        yield

    monkeypatch.setattr(population, "run", run)
    monkeypatch.setattr(phases, "run", lambda *given: iter(["event"]))
    experiments = population.members([TrainConfig(**TINY, seed=seed) for seed in (0, 1)])
    events = [*population.train_all(experiments)]
    assert events == [(None, population.Apart("together: compile = true: no graph")), (0, "event"), (1, "event")]


def test_a_view_that_reads_numbers_back_is_one_operation_of_the_graph():
    torch._dynamo.reset()
    images = rng.randint(rng.key(0), (6, 1, 8, 8), 256).to(torch.uint8)
    view = base.compose(randaugment(), base.identity)
    fast = torch.compile(view, backend="eager", fullgraph=True)
    assert torch.equal(fast(images, rng.key(1)), view(images, rng.key(1)))


def test_precision_is_compared_without_a_compiler(monkeypatch):
    monkeypatch.setattr(compiling, "Compilation", None)
    monkeypatch.setattr(compiling, "require", lambda *given: None)
    experiment = prepare(TrainConfig(**TINY, precision="bf16", compile=True))
    spec = methods.plan(experiment.config)[0]
    assert lowering.compared(experiment, lambda one: phases.prepare_phase(one, spec, {})).near


def trained(**options):
    """The networks of each member, with the events of the compiler."""
    seeds = options.pop("seeds", 1)
    configs = [TrainConfig(**{**TINY, **options}, seed=seed) for seed in range(seeds)]
    networks, events = {}, []
    for index, event in population.train_all(population.members(configs), strict=True):
        if isinstance(event, phases.Finished):
            networks[index] = event.result.networks
        if isinstance(event, compiling.Compiled | population.Apart):
            events.append(event)
    return tree.leaves(networks), events


CASES = {
    "first-order": {"grad": "first-order"},
    "difference": {"grad": "exact:route=difference"},
    "pseudo-labels": {"method": "pseudo-labels"},
    "reduced": {"method": "reduced", "precision": "bf16"},
    "guided": {"guide": "consensus", "alignment": "adamatch", "threshold": "adaptive", "mixing": "mixup"},
    "unrolled": {"unroll": 2, "microbatch": 16, "batch": 32, "student_wait": 2, "optimizer": "adamw"},
    "rollback": {"on_nonfinite": "rollback", "model": "mlp:width=8,depth=1,dropout=0.2"},
    "convolutions": {"model": "convnet:width=4", "augment": "small", "method": "uda"},
    "seeds": {"seeds": 3},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of its own doing
@pytest.mark.parametrize("case", CASES)
def test_whole_runs(case, monkeypatch, caplog):
    """Every phase one graph, and the networks those of a run without a compiler."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    expected, _ = trained(**CASES[case])
    found, events = trained(**CASES[case], compile=True)
    assert events
    assert {type(event) for event in events} == {compiling.Compiled}
    assert not said(caplog)
    assert relative_error(found, expected) <= 1e-5


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of its own doing
def test_generated_code_has_the_same_numbers_and_goes_on_with_them(tmp_path):
    """Views and draws included, after 20 steps; a run that was stopped has those of one that was not, bit for bit."""
    options = {**TINY, "steps": 20, "report_every": 20, "finetune_steps": 0}
    flags = [word for name, value in options.items() if name != "baselines" for word in (flag(name), value)]
    whole, stopped, plain = (tmp_path / name for name in ("whole", "stopped", "plain"))
    assert invoke("train", *flags, "--no-baselines", "--out", plain).code == 0
    for out in (whole, stopped):
        done = invoke("train", *flags, "--no-baselines", "--compile", "--out", out, "--keep", "2",
                      "--checkpoint-every", "15")  # fmt: skip
        assert done.code == 0, done.err
        assert "mpl            the step is compiled, as one graph" in done.out
    (stopped / "summary.json").unlink()
    (state,) = (stopped / "checkpoints").glob("state-*")
    assert state.name.endswith("15.safetensors")
    done = invoke("train", "--resume", stopped)
    assert done.code == 0, done.err
    networks = [checkpoint.load_networks(out / checkpoint.CHECKPOINT) for out in (plain, whole, stopped)]
    expected, found, resumed = map(tree.leaves, networks)
    assert relative_error(found, expected) <= 1e-5
    assert all(map(torch.equal, found, resumed))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_draws_whose_places_a_c_compiler_knows():
    """Multiples of a large constant overflow: in C++ a loop over them may end where they do."""
    torch._dynamo.reset()
    images = rng.uniform(rng.key(0), (10, 1, 8, 8))
    views = base.compose(crops.flip(), crops.pad_crop(1), crops.cutout(2))
    fast = torch.compile(views, fullgraph=True, dynamic=False)
    assert torch.equal(fast(images, rng.key(1)), views(images, rng.key(1)))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keys_of_places_that_a_c_compiler_knows():
    """The last two of fifty are what a vectorised loop leaves over, with its places written out."""

    def keys(key):
        return rng.fold_in(rng.split(key, 3)[1], torch.arange(50)), torch.vmap(rng.fold_in)(
            torch.stack([key, key]), few
        )

    torch._dynamo.reset()
    few = torch.arange(2)
    fast = torch.compile(keys, fullgraph=True, dynamic=False)
    assert all(map(torch.equal, fast(rng.key(9)), keys(rng.key(9))))
