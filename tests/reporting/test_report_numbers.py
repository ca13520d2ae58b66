"""The numbers on the page about a run, and the mistakes on it, computed again by other libraries."""

import base64
import io
import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from markup import cells, parse
from PIL import Image
from reports import ROWS, RUNS, finished, reading
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torchmetrics.functional.classification import calibration_error

from metapl.reporting import classes, facts, head, render
from metapl.training import phases

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return partial(finished, tmp_path_factory)


# ---------------------------------------------------------------- numbers


def shown(value, decimals=2):
    return f"{value:.{decimals}f}".replace("-", "−")


def signed(value, decimals=2):
    return "+" * bool(round(value, decimals) > 0) + shown(value, decimals)


@pytest.mark.parametrize("name", RUNS)
def test_metrics_are_those_of_the_summary(made, name):
    one = made(name)
    several = one.data.classes > 5
    expected = {
        ROWS[network]: [
            shown(100 * row["top1"]),
            *([shown(100 * row["top5"])] if several else []),
            shown(row["nll"], 3),
            shown(100 * row["ece"]),
        ]
        for network, row in one.summary["test"].items()
    }
    head, *found = cells(one.page, "test metrics by network")
    assert ("top-5 %" in head) == several
    assert {row[0]: row[1:] for row in found} == expected
    assert [row[0] for row in found] == [text for network, text in ROWS.items() if network in one.networks]
    chosen = one.page.one("div", aria_label="test metrics by network").one("tr", class_="chosen")
    assert chosen.one("th").text == ROWS[one.final]


def paired(one, before, after):
    """The change of right answers and √(b + c) / n, counted."""
    right = [one.probabilities(name).argmax(-1) == one.y for name in (before, after)]
    gained, lost = (right[1] & ~right[0]).sum(), (right[0] & ~right[1]).sum()
    return (gained - lost) / len(one.y), math.sqrt(gained + lost) / len(one.y)


@pytest.mark.parametrize(
    ("name", "baseline"), [("mpl", "supervised"), ("reduced", "fixed"), ("pseudo-labels", "supervised")]
)
def test_the_headline(made, name, baseline):
    one = made(name)
    tiles = [[part.text for part in tile.all("dd")] for tile in one.page.all("div", class_="tile")]
    expected = []
    for network in (one.final, baseline):
        share = one.summary["test"][network]["top1"]
        error = 100 * stats.bernoulli(share).std() / math.sqrt(len(one.y))
        expected.append([f"{shown(100 * share)} %", f"± {shown(error)}"])
    gap, error = paired(one, baseline, one.final)
    assert tiles == [*expected, [f"{signed(100 * gap)} points", f"± {shown(100 * error)}, paired"]]


def test_what_finetuning_did(made):
    one = made("mpl")
    found = {row[0]: row[1:] for row in cells(one.page, "metrics before and after finetuning")[1:]}
    rows = [one.summary["test"][name] for name in ("ema", "finetuned")]
    assert [found["top-1 %"][:2], found["NLL"][:2]] == [
        [shown(100 * row["top1"]) for row in rows],
        [shown(row["nll"], 3) for row in rows],
    ]
    gap, error = paired(one, "ema", "finetuned")
    assert found["top-1 %"][2:] == [signed(100 * gap), shown(100 * error)]
    nll = [-np.log(one.probabilities(name)[np.arange(len(one.y)), one.y]) for name in ("finetuned", "ema")]
    test = stats.ttest_rel(*nll)
    difference = np.mean(nll[0] - nll[1])
    assert found["NLL"][2:] == [signed(difference, 3), shown(difference / test.statistic, 3)]
    assert found["ECE %"][3] == "–"


@pytest.mark.parametrize("name", RUNS)
def test_the_bins_of_the_reliability_diagram(made, name):
    one = made(name)
    p = one.probabilities()
    confidence, right = p.max(-1), p.argmax(-1) == one.y
    owner = np.digitize(confidence, np.linspace(0, 1, 16)[1:-1], right=True)
    found = cells(one.page, f"bins of the network {ROWS[one.final]}")[1:]
    assert len(found) == 15
    for place, row in enumerate(found):
        mine = owner == place
        means = [shown(100 * part[mine].mean()) if mine.any() else "–" for part in (confidence, right)]
        assert row[1:] == [str(mine.sum()), *means]
    counts, means, accuracy = (np.array([float(row[i].replace("–", "0")) for row in found]) for i in (1, 2, 3))
    logits = phases.predict(one.experiment, one.final, one.networks[one.final], "test")
    expected = calibration_error(
        logits.double().softmax(-1), one.data.y_test, task="multiclass", n_bins=15, num_classes=one.data.classes
    )
    assert counts @ np.abs(means - accuracy) / len(one.y) == pytest.approx(100 * expected.item(), abs=0.02)


@pytest.mark.parametrize("name", [name for name in RUNS if name != "uda"])
def test_the_confusion_matrix(made, name):
    one = made(name)
    _, head, *found = cells(one.page, "confusion matrix")
    assert head[1:] == [row[0] for row in found] == list(one.data.form.classes)
    expected = confusion_matrix(one.y, one.probabilities().argmax(-1), labels=range(one.data.classes))
    np.testing.assert_array_equal([[int(cell) for cell in row[1:]] for row in found], expected)


@pytest.mark.parametrize("name", RUNS)
def test_recall_and_precision(made, name):
    one = made(name)
    precision, recall, _, count = precision_recall_fscore_support(
        one.y, one.probabilities().argmax(-1), labels=range(one.data.classes), zero_division=np.nan
    )
    expected = [
        [str(of), *("–" if np.isnan(share) else shown(100 * share, 1) for share in shares)]
        for of, *shares in zip(count, recall, precision, strict=True)
    ]
    assert [row[1:] for row in cells(one.page, "recall and precision by class")[1:]] == expected
    assert (count == 0).any() == (name == "uda")


def test_many_classes_have_their_confusions_listed(made):
    """Of a test set whose classes are mostly what the network says, and not where they were."""
    one = made("uda")
    predicted = one.probabilities().argmax(-1)
    y = np.where(np.arange(len(predicted)) % 4, predicted, one.y)
    with reading(one.data._replace(y_test=torch.from_numpy(y))):
        gathered = facts.gather(one.folder, "cpu")
        page = parse(render.page(head.head(gathered), [classes.classes(gathered)]))
    counts = confusion_matrix(y, predicted, labels=range(25))
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    np.fill_diagonal(counts, 0)
    found = cells(page, "most frequent confusions")[1:]
    assert len(found) == min(20, (counts > 0).sum())
    pairs = [tuple(one.data.form.classes.index(name) for name in row[:2]) for row in found]
    assert len(set(pairs)) == len(pairs)
    assert [int(row[2]) for row in found] == [counts[pair] for pair in pairs]
    assert [int(row[2]) for row in found] == sorted(counts.ravel())[::-1][: len(found)]
    assert [row[3] for row in found] == [shown(100 * shares[pair], 1) for pair in pairs]
    assert not list(page.all("table", class_="matrix"))


def test_many_classes_have_the_worst_ones_listed(made):
    one = made("uda")
    every = {row[0]: row for row in cells(one.page, "recall and precision by class")[1:]}
    found = cells(one.page, "classes of the lowest recall")[1:]
    assert found == [every[row[0]] for row in found]
    recalls = sorted(float(row[2]) for row in every.values() if row[2] != "–")
    assert [float(row[2]) for row in found] == recalls[:10]


# ---------------------------------------------------------------- mistakes


def wrong(one, most):
    """Index, class, prediction, confidence and probability of the truth of the most confident mistakes."""
    p = one.probabilities()
    predicted, confidence = p.argmax(-1), p.max(-1)
    order = [i for i in np.lexsort((np.arange(len(p)), -confidence)) if predicted[i] != one.y[i]][:most]
    return [(i, one.y[i], predicted[i], confidence[i], p[i, one.y[i]]) for i in order]


def shown_pictures(one):
    return one.page.one("ul", class_="pictures").all("img")


def decoded(image):
    kind, _, data = image.attributes["src"].partition(",")
    assert kind == "data:image/png;base64"
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("name", ["mpl", "uda"])
def test_the_most_confident_mistakes_are_pictures(made, name):
    one = made(name)
    classes = one.data.form.classes
    found = list(one.page.one("ul", class_="pictures").all("li"))
    expected = wrong(one, 24)
    assert len(found) == 24
    for card, (index, truth, predicted, confidence, _) in zip(found, expected, strict=True):
        assert card.text == f"{classes[truth]}, taken for {classes[predicted]}{shown(100 * confidence, 1)} % sure"
        assert card.one("img").attributes["alt"].startswith(f"test example {index}: ")


def test_pictures_have_the_pixels_of_the_test_images(made):
    """Digits have 17 levels of grey; the colour images are kept as they are."""
    raw = load_digits()
    for image, (_, truth, *_) in zip(shown_pictures(made("mpl")), wrong(made("mpl"), 24), strict=True):
        levels = decoded(image)
        assert ((np.round(raw.images[raw.target == truth] * 255 / 16) == levels).all((1, 2))).any()
    one = made("uda")
    for image, (index, *_) in zip(shown_pictures(one), wrong(one, 24), strict=True):
        np.testing.assert_array_equal(decoded(image).transpose(2, 0, 1), one.data.x_test[index].numpy())
        assert "crisp" in image.attributes["class"]


@pytest.mark.parametrize(("name", "most"), [("supervised", 24), ("pseudo-labels", 24), ("reduced", 12)])
def test_the_most_confident_mistakes_are_rows(made, name, most):
    one = made(name)
    expected = [
        [str(index), *(one.data.form.classes[label] for label in labels), *(shown(100 * share, 1) for share in shares)]
        for index, *labels, confidence, of_truth in wrong(one, most)
        for shares in [(confidence, of_truth)]
    ]
    assert [row[:5] for row in cells(one.page, "mistakes")[1:]] == expected


def test_rows_of_a_table_name_what_is_unusual(made):
    """Numbers are put back into their units, from the file; deviations are those of the whole test set."""
    one = made("supervised")
    _, *lines = (one.folder.parent / "table.csv").read_text().splitlines()
    known = {tuple(line.split(",")[:3]) for line in lines}
    units = {float(row[0]) for row in known}, {float(row[2]) for row in known if row[2]}
    listed = [[item.text for item in cell.all("li")] for cell in one.page.all("ul", class_="plain")]
    assert listed
    assert any("income missing (" in text for texts in listed for text in texts)
    for texts in listed:
        assert 1 <= len(texts) <= 3
        for text in texts:
            if number := re.fullmatch(r"(height|income) ([\d.]+) \([+−][\d.]+ σ\)", text):
                assert float(number[2]) in units[number[1] == "income"]
            else:
                assert re.fullmatch(r"colour <b> = (red|green|blue) \(\d+ %\)|income missing \(\d+ %\)", text)
