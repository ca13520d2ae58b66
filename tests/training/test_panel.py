"""The classical panel in a run: in the table, the files and the page, of one seed and of several."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from asserts import assert_close_tree
from command import invoke
from safetensors.torch import load_file, save_file

from metapl import methods
from metapl.core import rng, tree
from metapl.training import checkpoint, experiment, phases, population, run_folder, seen
from metapl.training.config import TrainConfig

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

MOONS = ("--data", "moons:points=120", "--labels", "6", "--validation", "20", "--model", "mlp:width=4,depth=1")
FLAGS = (*MOONS, "--method", "supervised", "--steps", "3", "--device", "cpu")
PANEL = {"logistic": "logistic regression", "self-training": "self-training", "spreading": "label spreading"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, and what it printed."""
    folder = tmp_path_factory.mktemp("run") / "run"
    outcome = invoke("train", *FLAGS, "--out", folder)
    assert (outcome.code, outcome.err) == (0, "")
    return folder, outcome.out


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_the_table_and_the_summary_have_its_rows_above_the_networks(trained):
    folder, out = trained
    found = summary(folder)
    assert set(found["test"]) == set(found["validation"]) == {*PANEL, "supervised"}
    rows = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    assert [row[1].strip() for row in rows] == [*PANEL.values(), "supervised only"]
    for row, name in zip(rows, [*PANEL, "supervised"], strict=True):
        assert row[2].strip() == f"{100 * found['test'][name]['top1']:.2f}"


def test_one_line_says_what_each_chose(trained):
    folder, out = trained
    chosen = summary(folder)["chosen"]
    assert set(chosen) == set(PANEL)
    for name, text in chosen.items():
        assert text.endswith("; chosen on 20 validation examples")
        assert sum(line == f"{name:<14} {text}" for line in out.splitlines()) == 1


def test_the_page_has_its_rows_and_its_choices(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    assert invoke("report", tmp_path / "run").code == 0
    page = (tmp_path / "run" / "report.html").read_text()
    found = summary(trained[0])
    for name, title in PANEL.items():
        assert re.search(rf"<t[hd][^>]*>{title}</t[hd]>\s*<td[^>]*>{100 * found['test'][name]['top1']:.2f}<", page)
        assert found["chosen"][name].replace("'", "&#39;") in page


def test_it_is_evaluated_again_from_its_files(trained, tmp_path):
    assert invoke("eval", trained[0], "--json", tmp_path / "test.json").code == 0
    assert json.loads((tmp_path / "test.json").read_text()) == summary(trained[0])["test"]


def test_no_baselines_leaves_it_out(trained, tmp_path):
    outcome = invoke("train", *FLAGS, "--no-baselines", "--out", tmp_path / "run")
    found = summary(tmp_path / "run")
    assert set(found["test"]) == {"supervised"}
    assert found["chosen"] == {}
    assert not any(title in outcome.out for title in PANEL.values())
    with_it, without = (checkpoint.load_networks(one / run_folder.CHECKPOINT) for one in (trained[0], tmp_path / "run"))
    assert_close_tree(tuple(with_it["supervised"]), tuple(without["supervised"]), rtol=0)


def test_seeds_that_train_together_have_each_its_own():
    config = {"data": "moons:points=120", "labels": 6, "model": "mlp:width=4,depth=1", "steps": 2, "device": "cpu"}
    configs = [TrainConfig(**config, method="supervised", validation=20, seed=seed) for seed in (0, 4)]
    members = population.members(configs)
    assert not population.refuses(members)
    events = list(population.run(members))
    results = [event.result for _, event in events if isinstance(event, phases.Finished)]
    told = [(index, event.phase, event.fitted.chosen) for index, event in events if isinstance(event, phases.Chosen)]
    for index, config in enumerate(configs):
        alone = phases.finish(phases.run(experiment.prepare(config)))
        assert results[index].chosen == alone.chosen
        assert [one[1:] for one in told if one[0] == index] == list(alone.chosen.items())
        for name in PANEL:
            assert_close_tree(results[index].networks[name], alone.networks[name], rtol=0)
    assert not torch.equal(*(one.networks["spreading"].buffers["examples"] for one in results))


@pytest.mark.parametrize("method", PANEL)
def test_each_is_a_method_of_its_own(method, tmp_path):
    data = ("--data", "digits", "--labels", "20", "--method", method, "--device", "cpu")
    outcome = invoke("train", *data, "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert set(summary(tmp_path / "run")["test"]) == set(PANEL)
    image = (16 * np.eye(8)).astype(np.uint8)[None]
    np.save(tmp_path / "x.npy", image)
    for verb, *more in (["predict", tmp_path / "x.npy"], ["report"], ["eval"], ["export", "--out", tmp_path / "model"]):
        outcome = invoke(verb, tmp_path / "run", *more)
        assert outcome.code == 0, outcome.err
    from metapl.serving import exported  # noqa: PLC0415 - after the run

    found = exported.load(tmp_path / "model")
    serving = run_folder.serve(tmp_path / "run", device="cpu")
    assert serving.name == method
    x = rng.normal(rng.key(0), (5, 1, 8, 8))
    assert torch.equal(found.network(x), serving.model.apply(*serving.network, x, train=False)[0])
    assert summary(tmp_path / "run")["chosen"][method].split(";")[0] in (tmp_path / "model" / "README.md").read_text()


def test_a_run_of_an_older_version_is_read(trained, tmp_path):
    """It has none of these networks, and says nothing of what was chosen."""
    shutil.copytree(trained[0], tmp_path / "run")
    found = summary(trained[0])
    for part in ("test", "validation"):
        found[part] = {"supervised": found[part]["supervised"]}
    del found["chosen"], found["weights"]
    (tmp_path / "run" / "summary.json").write_text(json.dumps(found))
    place = tmp_path / "run" / run_folder.CHECKPOINT
    save_file({name: one for name, one in load_file(place).items() if name.startswith("supervised/")}, place)
    for verb in ("eval", "report"):
        outcome = invoke(verb, tmp_path / "run")
        assert (outcome.code, outcome.err) == (0, "")


HOSTILE = {
    "far too many examples": (
        {"params/votes": torch.zeros(20_001, 2), "buffers/examples": torch.zeros(20_001, 2)},
        "at most 20000",
    ),
    "examples without size": (
        {"params/votes": torch.zeros(2**40, 0), "buffers/examples": torch.zeros(2**40, 0)},
        "at most 20000|beyond their size",
    ),
    "fewer votes than examples": ({"params/votes": torch.zeros(22, 2)}, "other tensors"),
    "a vote for a third class": ({"params/votes": torch.zeros(20, 3)}, "other tensors"),
    "more that vote than there are": ({"buffers/ranks": torch.zeros(10_000)}, "nearest"),
    "a projection to more than there is": ({"buffers/scaled.projection": torch.eye(2, 7)}, "at most the 2 features"),
    "whole numbers": ({"buffers/scaled.gain": torch.ones(2, dtype=torch.int64)}, "other tensors"),
    "a scalar of votes": ({"params/votes": torch.zeros(())}, "nearest|other tensors"),
    "a tensor more": ({"buffers/more": torch.zeros(1)}, "other tensors"),
}


@pytest.mark.parametrize(("tensors", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_network_of_a_stranger_is_refused_in_one_line(tensors, message, trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    found = summary(trained[0])
    del found["weights"]
    (tmp_path / "run" / "summary.json").write_text(json.dumps(found))
    place = tmp_path / "run" / run_folder.CHECKPOINT
    own = load_file(place)
    assert "spreading/params/votes" in own  # votes, and no regression
    save_file({**own, **{f"spreading/{name}": one for name, one in tensors.items()}}, place)
    for verb in ("eval", "predict"):
        outcome = invoke(verb, tmp_path / "run", *([tmp_path / "run"] * (verb == "predict")))
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert re.search(message, outcome.err)


# ---------------------------------------------------------------- what it looks at


def prepared(**options):
    return experiment.prepare(TrainConfig(**{"labels": 20, "validation": 30, "device": "cpu", **options}))


def test_it_looks_at_the_labelled_then_the_validation_part_then_the_others():
    given = prepared()
    found, split = seen.gather(given), given.split
    ready = given.data.augment.prepare(given.data.x).flatten(1)
    parts = found.x.split([20, 30, len(found.x) - 50])
    others = split.unlabelled[~torch.isin(split.unlabelled, split.labelled)]
    for part, index in zip(parts, (split.labelled, split.validation, others), strict=True):
        assert torch.equal(part.sort(0).values, ready[index].sort(0).values)
    assert (found.labelled, found.validation, found.left_out) == (20, 30, 0)
    known = [(row.tolist(), int(label)) for row, label in zip(found.x, found.y, strict=False)]
    truth = {tuple(row.tolist()): int(label) for row, label in zip(ready, given.data.y, strict=True)}
    assert all(truth[tuple(row)] == label for row, label in known)


def test_more_than_there_is_room_for_is_left_out_and_told(monkeypatch):
    monkeypatch.setattr(seen, "NUMBERS", 64 * 100)
    given = prepared()
    found = seen.gather(given)
    assert (len(found.x), found.labelled, found.validation) == (130, 20, 30)
    everything = len(torch.cat([given.split.labelled, given.split.unlabelled]).unique())
    assert found.left_out == everything - 100
    told = seen.fitting(given)("logistic", methods.find("logistic").phases[0].fit)
    assert told.chosen.endswith(f"; {found.left_out:,} examples are left out")
    again = seen.gather(given)
    assert torch.equal(found.x, again.x)
    assert not torch.equal(found.x, seen.gather(prepared(seed=1)).x)


def test_room_is_for_two_examples_a_class_and_never_for_too_many():
    assert seen.room((3, 4000, 4000), 10) == 20
    assert seen.room((1,), 10) == 20_000
    assert seen.room((1280,), 10) == 13_107


def test_nothing_of_the_run_is_written_on():
    given = prepared()
    before = tree.map(torch.clone, (given.data.x, given.data.y, tuple(given.split)))
    seen.fitting(given)("spreading", methods.find("spreading").phases[0].fit)
    assert_close_tree((given.data.x, given.data.y, tuple(given.split)), before, rtol=0)
