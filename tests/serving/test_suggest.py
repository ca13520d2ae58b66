"""`metapl suggest`: whose labels are asked for, which labels are doubted, and what is written."""

import csv
import io

import numpy as np
import pytest
import torch
from command import invoke
from PIL import Image
from safetensors.numpy import load_file
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from metapl.registry.errors import InputError
from metapl.serving import doubts, last_layer, suggest
from metapl.serving.answers import Answers
from metapl.serving.suggest import Wanted
from metapl.training import run_folder

FLAGS = ("--method", "uda", "--model", "mlp:width=32,depth=1", "--no-baselines", "--guide", "none", "--device", "cpu")
WRONG = {"00.png": 7, "05.png": 1}
"""Labels that are given although they are wrong."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Digits 2 and 7 and 1 in a flat folder, 40 of 90 with a label, two of these wrong; and the truth."""
    place = tmp_path_factory.mktemp("photos") / "photos"
    place.mkdir()
    found = load_digits()
    index = [one for one in range(len(found.target)) if found.target[one] in (1, 2, 7)][:90]
    truth = {f"{number:02d}.png": int(found.target[one]) for number, one in enumerate(index)}
    for name, one in zip(truth, index, strict=True):
        Image.fromarray((found.images[one] * 15.9).astype(np.uint8)).save(place / name)
    labels = dict([*truth.items()][:40]) | WRONG
    lines = [f"{name},digit {label}" for name, label in labels.items()]
    (place / "labels.csv").write_text("\n".join(["filename,label", *lines]) + "\n")
    return place, truth


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    data = f"{photos[0]}:test=0.1"
    outcome = invoke("train", "--data", data, *FLAGS, "--validation", 0, "--steps", 150, "--out", folder)
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture(scope="module")
def found(run):
    return suggest.suggest(run, Wanted(most=20))


def hidden(run):
    """The hidden layer of the perceptron for images of the folder, in float64, from the file of the weights."""
    tensors = load_file(run / "checkpoints" / "final.safetensors")
    one, bias = (tensors[f"uda/params/{name}"].astype(np.float64) for name in ("1.weight", "1.bias"))
    form = run_folder.serve(run, device="cpu").form

    def of(levels):
        x = (levels / 255 - form.details["mean"][0]) / form.details["std"][0]
        return np.maximum(x.reshape(len(x), -1) @ one.T + bias, 0)

    return of


def test_only_examples_without_a_label_are_asked_for(found, photos):
    given = {line.split(",")[0] for line in (photos[0] / "labels.csv").read_text().splitlines()}
    assert found.asked == 50
    assert len(found.rows) == 20
    assert not {row.name for row in found.rows} & given
    assert all(row.label == "" for row in found.rows)


def test_rows_and_pictures_belong_together(found, photos):
    for row, image in zip(found.rows, found.x, strict=True):
        assert np.array_equal(image[0].numpy(), np.asarray(Image.open(photos[0] / row.name)))


def test_what_is_said_of_a_row_is_what_predict_says(found, run, photos, tmp_path):
    out = tmp_path / "predictions.csv"
    assert invoke("predict", run, *(photos[0] / row.name for row in found.rows), "--out", out).code == 0
    for row, said in zip(found.rows, csv.DictReader(io.StringIO(out.read_text())), strict=True):
        assert row.prediction == said["prediction"]
        assert row.confidence == pytest.approx(float(said["confidence"]), rel=1e-5)
        values = sorted(float(said[f"p(digit {label})"]) for label in (1, 2, 7))
        assert row.of_second == pytest.approx(values[-2], rel=1e-4)
        assert row.score == pytest.approx(1 - (values[-1] - values[-2]), rel=1e-4)


def test_wrong_labels_are_doubted_first(found):
    assert {row.name for row in found.doubtful[:2]} == set(WRONG)
    assert {row.name: row.label for row in found.doubtful[:2]} == {
        name: f"digit {label}" for name, label in WRONG.items()
    }


def test_doubts_are_margins_against_the_label():
    generator = np.random.default_rng(0)
    said, y = generator.dirichlet(np.ones(3), size=20), generator.integers(0, 3, 20)
    expected = [np.delete(row, label).max() - row[label] for row, label in zip(said, y, strict=True)]
    np.testing.assert_allclose(doubts.score(torch.from_numpy(said), torch.from_numpy(y)), expected)


def test_neighbours_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    one, other, said = (generator.normal(size=shape) for shape in ((300, 5), (40, 5), (40, 3)))
    nearest = NearestNeighbors(n_neighbors=10, metric="cosine").fit(other).kneighbors(one, return_distance=False)
    found = doubts.of_neighbours(*map(torch.from_numpy, (one, other, said)))
    np.testing.assert_allclose(found, said[nearest].mean(1), rtol=1e-6)


@pytest.mark.parametrize("by", ["entropy", "disagreement", "diverse", "effect"])
def test_every_strategy_takes_a_run(run, by):
    found = suggest.suggest(run, Wanted(by, 5))
    assert len({row.name for row in found.rows}) == 5
    assert all(np.isfinite(row.score) for row in found.rows)


def test_the_effect_is_that_of_a_step(run):
    """The slopes of the logits along the gradient, against central differences in float64 of a network in numpy."""
    experiment, networks = run_folder.load(run, "cpu")
    wide = networks["uda"]._replace(params={name: one.double() for name, one in networks["uda"].params.items()})
    known = experiment.split.labelled
    x = experiment.data.augment.prepare(experiment.data.x).double()

    def logits(weights, x):
        hidden = np.maximum(x @ weights["1.weight"].T + weights["1.bias"], 0)
        return hidden @ weights["3.weight"].T + weights["3.bias"]

    def loss(weights):
        said = logits(weights, x[known].flatten(1).numpy())
        return (np.log(np.exp(said).sum(1)) - said[range(len(known)), experiment.data.y[known].numpy()]).mean()

    weights = {name: one.numpy() for name, one in wide.params.items()}
    one = Answers(experiment, {"uda": networks["uda"]}, "uda", 32)
    slopes = one.slopes(experiment.data.x[:4]).numpy()
    direction = {name: np.zeros_like(value) for name, value in weights.items()}
    for name in ("3.bias", "3.weight", "1.bias", "1.weight"):
        for place in np.ndindex(*weights[name].shape):
            ends = []
            for sign in (1, -1):
                moved = {key: value.copy() for key, value in weights.items()}
                moved[name][place] += sign * 1e-5
                ends.append(loss(moved))
            direction[name][place] = (ends[0] - ends[1]) / 2e-5
    ahead, behind = (
        logits({key: value + sign * 1e-5 * direction[key] for key, value in weights.items()}, x[:4].flatten(1).numpy())
        for sign in (1, -1)
    )
    np.testing.assert_allclose(slopes, (ahead - behind) / 2e-5, rtol=2e-3, atol=2e-5)


def test_features_are_what_the_last_layer_sees(run, photos):
    levels = np.stack([np.asarray(Image.open(photos[0] / f"{number:02d}.png")) for number in range(3)])
    serving = run_folder.serve(run, device="cpu")
    x = torch.from_numpy(levels)[:, None]
    experiment, _ = run_folder.load(run, "cpu")
    features = last_layer.features(serving, [experiment.data.augment.prepare(x)])
    np.testing.assert_allclose(features.numpy(), hidden(run)(levels), rtol=1e-4, atol=1e-5)


def test_fresh_examples_take_the_place_of_the_pool(run, photos):
    fresh = [photos[0] / "00.png", photos[0] / "01.png"]
    assert {row.name for row in suggest.suggest(run, Wanted(), fresh).rows} == set(map(str, fresh))


def test_the_table_has_both_lists(found):
    file = io.StringIO()
    suggest.write(file, found)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [row["why"] for row in rows] == ["unlabelled"] * 20 + ["doubtful"] * len(found.doubtful)
    assert [row["name"] for row in rows] == [row.name for row in (*found.rows, *found.doubtful)]
    assert {row["label"] for row in rows[:20]} == {""}


def test_names_are_no_formulas(found):
    file = io.StringIO()
    hostile = found._replace(rows=(found.rows[0]._replace(name="=HYPERLINK(1)"),), doubtful=())
    suggest.write(file, hostile)
    assert "\n'=HYPERLINK(1)," in file.getvalue()


def test_a_file_that_somebody_may_have_filled_in_is_not_overwritten(run, tmp_path):
    out = tmp_path / "next.csv"
    assert invoke("suggest", run, "--out", out, "--count", 3).code == 0
    again = invoke("suggest", run, "--out", out)
    assert again.code == 2
    assert "exists already" in again.err


def test_the_page_is_whole_and_runs_nothing(run, tmp_path):
    out = tmp_path / "next.csv"
    assert invoke("suggest", run, "--out", out, "--count", 3).code == 0
    page = out.with_suffix(".html").read_text()
    names = [row["name"] for row in csv.DictReader(io.StringIO(out.read_text()))]
    assert all(name in page for name in names)
    assert page.count("data:image/png") == len(names)
    assert "<script" not in page


def test_a_run_with_all_labels_has_nothing_to_ask_for(tmp_path):
    lines = "".join(f"{number / 7:.3f},{number * 5 % 13},{'ab'[number % 2]}\n" for number in range(60))
    (tmp_path / "t.csv").write_text("a,b,label\n" + lines)
    flags = ("--labels", 46, "--validation", 0, "--steps", 3)
    assert invoke("train", "--data", tmp_path / "t.csv", *FLAGS, *flags, "--out", tmp_path / "run").code == 0
    found = suggest.suggest(tmp_path / "run", Wanted())
    assert found.asked == 2
    with pytest.raises(InputError, match="network"):
        suggest.suggest(tmp_path / "run", Wanted(network="teacher"))
