"""A run that goes on from another one with more labels."""

import json

import numpy as np
import pytest
import torch
from command import invoke
from PIL import Image

from metapl.core import rng
from metapl.training import checkpoint, run_folder
from metapl.training.config import resolve
from metapl.training.experiment import prepare

FLAGS = ("--method", "uda", "--model", "mlp:width=8,depth=1", "--no-baselines", "--guide", "none", "--device", "cpu")
FLAGS += ("--steps", "3", "--validation", "0")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    place = tmp_path_factory.mktemp("photos") / "photos"
    place.mkdir()
    generator = np.random.default_rng(0)
    for number in range(30):
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(place / f"{number:02d}.png")
    lines = [f"{number:02d}.png,{'ab'[number % 2]}" for number in range(14)]
    (place / "labels.csv").write_text("\n".join(["file,label", *lines]) + "\n")
    return place


@pytest.fixture(scope="module")
def first(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    outcome = invoke("train", "--data", photos, *FLAGS, "--out", folder)
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "more.csv"
    path.write_text("name,label\n20.png,a\n21.png,b\n22.png,a\n")
    return path


@pytest.fixture(scope="module")
def second(first, labels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("second") / "run"
    outcome = invoke("train", "--from", first, "--more-labels", labels, "--out", folder)
    assert (outcome.code, outcome.err) == (0, "")
    return folder


def split_of(run):
    return json.loads((run / "split.json").read_text())


def test_the_networks_start_where_the_other_run_ended(first, second):
    stored = checkpoint.load_networks(first / checkpoint.CHECKPOINT)["uda"]
    experiment = prepare(run_folder.config(second, "cpu"))
    params, _ = experiment.trainable(experiment.models.student, "lr").model.init(rng.key(5))
    assert stored.params.keys() == params.keys()
    assert all(torch.equal(stored.params[name], params[name]) for name in params)


def test_without_it_they_start_by_the_key(first):
    stored = checkpoint.load_networks(first / checkpoint.CHECKPOINT)["uda"]
    experiment = prepare(run_folder.config(first, "cpu"))
    params, _ = experiment.trainable(experiment.models.student, "lr").model.init(rng.key(5))
    assert not torch.equal(stored.params["1.weight"], params["1.weight"])


def test_the_split_has_the_new_labels_and_is_the_same_otherwise(first, second):
    one, other = split_of(first), split_of(second)
    names = prepare(run_folder.config(second, "cpu")).data.names
    assert sorted(names[place] for place in set(other["labelled"]) - set(one["labelled"])) == [
        "20.png",
        "21.png",
        "22.png",
    ]
    assert set(one["labelled"]) < set(other["labelled"])
    assert (one["unlabelled"], one["validation"]) == (other["unlabelled"], other["validation"])


def test_the_configuration_is_that_of_the_other_run(first, second):
    one, other = (resolve({}, folder / "config.toml") for folder in (first, second))
    assert (other.model, other.steps, other.data) == (one.model, one.steps, one.data)
    assert other.from_ == str(first)


def test_labels_add_up_from_run_to_run(second, tmp_path):
    (tmp_path / "third.csv").write_text("name,label\n25.png,b\n")
    outcome = invoke("train", "--from", second, "--more-labels", tmp_path / "third.csv", "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert len(split_of(tmp_path / "run")["labelled"]) == len(split_of(second)["labelled"]) + 1
    assert invoke("eval", tmp_path / "run").code == 0


def test_it_needs_the_other_run_no_more_once_it_is_over(first, labels, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    for file in sorted(first.rglob("*")):
        target = gone / file.relative_to(first)
        target.mkdir(exist_ok=True) if file.is_dir() else target.write_bytes(file.read_bytes())
    assert invoke("train", "--from", gone, "--more-labels", labels, "--out", tmp_path / "run").code == 0
    gone.rename(tmp_path / "away")
    outcome = invoke("eval", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")


def test_other_examples_have_a_split_of_their_own(first, photos, tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    for file in photos.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(place / "00a.png")  # between the others
    outcome = invoke("train", "--from", first, "--data", place, "--out", tmp_path / "run")
    assert outcome.code == 0
    assert "the split is drawn anew" in outcome.err


def test_examples_behind_the_others_are_unlabelled_ones(first, tmp_path):
    (tmp_path / "more").mkdir()
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(tmp_path / "more" / "new.png")
    outcome = invoke("train", "--from", first, "--unlabelled", tmp_path / "more", "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    one, other = split_of(first), split_of(tmp_path / "run")
    assert other["labelled"] == one["labelled"]
    assert other["unlabelled"][-1][1] == one["unlabelled"][-1][1] + 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--model", "mlp:width=9,depth=1"), "--from"),
        (("--preset", "cifar10-4k"), "--preset"),
        (("--more-labels", "nowhere.csv"), "nowhere.csv"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(first, tmp_path, flags, said):
    outcome = invoke("train", "--from", first, *flags, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert said in outcome.err
    assert not (tmp_path / "run").exists()


def test_what_is_no_run_is_refused(tmp_path):
    outcome = invoke("train", "--from", tmp_path, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "not a run" in outcome.err
