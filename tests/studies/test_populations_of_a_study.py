"""Which runs of a study are trained together, in one process or in several, and which one by one."""

from collections import Counter

import pytest
from executions import ARMS, LINES, contents, jobs_of, run

from metapl.registry.errors import InputError
from metapl.studies import execution
from metapl.training import loop, phases, population
from metapl.training.experiment import prepare

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.mark.parametrize("together", [1, 2, 3, 5, 100])
def test_populations_are_alike_and_no_larger_than_asked(together):
    jobs = jobs_of({**ARMS, "calm": {"uda_weight": 0.0}, "late": {"grad": "none", "lr": 0.3}}, seeds=3)
    groups = execution.groups(jobs, together)
    assert Counter(job.name for group in groups for job in group) == Counter(job.name for job in jobs)
    assert all(1 <= len(group) <= together for group in groups)
    kinds = [{(job.config.grad, job.config.uda_weight > 0) for job in group} for group in groups]
    assert {len(kind) for kind in kinds} == {1}
    for one in set().union(*kinds):
        sizes = [len(group) for group, kind in zip(groups, kinds, strict=True) if kind == {one}]
        assert all(size == together for size in sizes[:-1]), "a population could have been larger"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 20])
def test_processes_share_the_work(monkeypatch, size):
    groups = [[number] for number in range(7)]
    shares = []
    monkeypatch.setenv("WORLD_SIZE", str(size))
    for rank in range(size):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(execution.mine(groups))
    assert sorted(number for share in shares for (number,) in share) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("order", [("0", "1"), ("1", "0")])
def test_two_processes_give_the_files_of_one(whole, tmp_path, monkeypatch, order):
    jobs, folder = whole
    monkeypatch.setenv("WORLD_SIZE", "2")
    counts = []
    for rank in order:
        monkeypatch.setenv("RANK", rank)
        run(jobs, tmp_path)
        counts.append(len(execution.read(jobs, tmp_path)))
    assert counts == [{"0": 5, "1": 1}[order[0]], 6]
    assert contents(tmp_path) == contents(folder)


def test_every_run_has_a_file_of_its_own_whatever_the_name_of_its_arm(tmp_path):
    names = ["a b", "a/b", "a_b", "a%20b", "../a", ".", "", "A", "é", "🙂", "a:b", "x\ny"]
    jobs = jobs_of({name: {"lr": 0.01 * (1 + index)} for index, name in enumerate(names)}, seeds=1, steps=1)
    run(jobs, tmp_path / "runs", together=20)
    assert [found["arm"] for found in execution.read(jobs, tmp_path / "runs")] == names
    assert len(contents(tmp_path / "runs")) == len(names)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    with pytest.raises(InputError, match="too long for the name of a file"):
        run(jobs_of({"a" * 300: {}}), tmp_path)


def assert_alone(jobs, folder):
    """Bit for bit what a run of its own gives, and with the log of that alone."""
    for job, found in zip(jobs, execution.read(jobs, folder), strict=True):
        truth = phases.finish(phases.run(prepare(job.config)))
        assert (found["test"], found["validation"]) == (truth.test, truth.validation)
        assert [(line["phase"], line["step"]) for line in found["log"]] == LINES


def test_what_cannot_be_vectorised_goes_one_by_one_with_a_word(tmp_path):
    jobs = jobs_of({"peer": {"grad": "higher"}})
    (said,) = run(jobs, tmp_path)
    assert said.startswith("one after another: 2 runs such as peer-seed=0, since ")
    assert "requires_grad_" in said
    assert "\n" not in said
    assert_alone(jobs, tmp_path)


def test_of_those_only_the_missing_are_trained(tmp_path):
    jobs = jobs_of({"fixed": {"method": "reduced"}}, seeds=3)
    assert ["fixed teacher" in line for line in run(jobs, tmp_path)] == [True]
    before, ticks = contents(tmp_path), []
    (tmp_path / "fixed-seed=1.json").unlink()
    run(jobs, tmp_path, tick=ticks.append)
    assert {at.name for at in ticks} == {"fixed-seed=1"}
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "error", [RuntimeError("vmap: no. See elsewhere\nand so on"), RuntimeError(), AssertionError()]
)
def test_whatever_goes_wrong_together_is_tried_alone(tmp_path, monkeypatch, error):
    whole = population.run

    def broken(conditions, since=None):
        for index, event in whole(conditions, since):
            yield index, event
            if isinstance(event, loop.Stepped) and event.phase == "finetune":
                raise error

    monkeypatch.setattr(population, "run", broken)
    jobs = jobs_of({"exact": {}})
    (said,) = run(jobs, tmp_path)
    assert said.startswith("one after another: 2 runs such as exact-seed=0, since")
    assert said.endswith(", since vmap: no") == bool(str(error))
    assert_alone(jobs, tmp_path)


def test_bad_input_is_no_reason_to_go_one_by_one(tmp_path):
    with pytest.raises(InputError, match="unknown estimator 'exat'"):
        run(jobs_of({"a": {"grad": "exat"}}), tmp_path)

    def tick(progress):
        raise InputError("the disk is full")

    said = []
    with pytest.raises(InputError, match="the disk is full"):
        execution.run(jobs_of(), tmp_path, 3, said.append, tick)
    assert (said, contents(tmp_path)) == ([], {})
