"""Metrics against torchmetrics and closed forms."""

import math
import warnings

import pytest
import sklearn.metrics
import torch
from problems import convnet
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from metapl.core import rng
from metapl.evaluation import metrics
from metapl.nn import functional


def draw(count=700, classes=10, scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    y = torch.where(
        torch.rand(count, generator=generator) < 0.5,
        logits.argmax(-1),
        torch.randint(classes, (count,), generator=generator),
    )
    return logits, y


CASES = [(700, 10, 2.0), (700, 10, 0.1), (50, 2, 20.0), (333, 3, 1.0), (1, 4, 1.0)]


@pytest.mark.parametrize("case", CASES)
def test_top1_and_ece_equal_torchmetrics(case):
    logits, y = draw(*case)
    accuracy = MulticlassAccuracy(num_classes=case[1], average="micro")(logits, y)
    calibration = MulticlassCalibrationError(num_classes=case[1], n_bins=15, norm="l1")(logits.softmax(-1), y)
    assert metrics.top1(logits, y) == pytest.approx(float(accuracy), abs=1e-6)
    assert metrics.ece(logits, y) == pytest.approx(float(calibration), abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_nll_equals_torchs_cross_entropy(case):
    logits, y = draw(*case)
    assert metrics.nll(logits, y) == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-12)


def test_closed_forms():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]))
    y = torch.tensor([0, 1, 1])
    assert metrics.top1(logits, y) == pytest.approx(2 / 3)
    assert metrics.nll(logits, y) == pytest.approx(-(math.log(0.7) + math.log(0.3) + math.log(0.8)) / 3, rel=1e-6)
    # Three bins: right at 0.7 and at 0.8, wrong at 0.5.
    assert metrics.ece(logits, y) == pytest.approx((0.3 + 0.2 + 0.5) / 3, rel=1e-6)


def test_uniform_predictions():
    logits, y = torch.zeros(40, 10), torch.arange(40) % 10
    assert metrics.nll(logits, y) == pytest.approx(math.log(10))
    assert metrics.top1(logits, y) == pytest.approx(0.1)
    assert metrics.ece(logits, y) == pytest.approx(0.0, abs=1e-12)  # always class 0: right one time in ten


def test_predictions_in_one_bin_are_averaged_before_they_are_compared():
    """Confidence 0.75 throughout, right three times in four: calibrated, though no single prediction is."""
    logits = torch.log(torch.tensor([[0.75, 0.25]])).expand(8, -1)
    assert metrics.ece(logits, torch.tensor([0, 0, 0, 1] * 2)) == pytest.approx(0.0, abs=1e-7)


def test_a_confidence_of_a_fifth_lies_in_the_bin_that_it_ends():
    """(2/15, 3/15] holds 0.2: with 0.19 beside it the gap is one mean, with 0.21 it is two."""
    fifth, y = torch.zeros(1, 5, dtype=torch.float64), torch.tensor([0, 1])
    assert float(torch.softmax(fifth, -1).max()) == 0.2
    for beside, expected in ((0.19, abs((1 - 0.2) + (0 - 0.19)) / 2), (0.21, ((1 - 0.2) + (0.21 - 0)) / 2)):
        rest = (1 - beside) / 9
        other = torch.log(torch.tensor([[beside, *[rest] * 9]], dtype=torch.float64))
        padded = torch.cat([fifth, torch.full((1, 5), -math.inf, dtype=torch.float64)], dim=-1)
        assert metrics.ece(torch.cat([padded, other]), y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("right", "expected"), [(4, 0.0), (3, 0.25), (0, 1.0)])
def test_certain_predictions(right, expected):
    """Confidence exactly 1 is in the last bin."""
    logits = torch.tensor([[1000.0, 0.0, 0.0]]).expand(4, -1)
    y = torch.tensor([0] * right + [1] * (4 - right))
    assert float(torch.softmax(logits, -1).max()) == 1.0
    assert metrics.ece(logits, y) == pytest.approx(expected)


def test_large_float32_logits_have_a_finite_nll():
    assert metrics.nll(torch.tensor([[200.0, 0.0]]), torch.tensor([1])) == pytest.approx(200.0)


def test_predict_takes_the_data_in_parts_and_in_evaluation_mode():
    model = functional.from_module(convnet)
    params, buffers = model.init(rng.key(0))
    x = torch.randn(10, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    module = convnet().eval()
    module.load_state_dict({**params, **buffers})
    for batch in (3, 10, 100):
        found = metrics.predict(model, params, buffers, x.split(batch))
        torch.testing.assert_close(found, module(x).detach(), rtol=1e-12, atol=1e-14)
        assert not found.requires_grad


def test_evaluate_has_every_metric():
    model = functional.from_module(convnet)
    params, buffers = model.init(rng.key(0))
    x = torch.randn(10, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(10) % 3
    logits = metrics.predict(model, params, buffers, [x])
    expected = {name: metric(logits, y) for name, metric in metrics.METRICS.items()}
    assert metrics.evaluate(logits, y) == expected
    assert list(expected) == ["top1", "top5", "nll", "ece", "balanced", "macro_f1"]


def scores(count=400, classes=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, classes, generator=generator), torch.randint(classes, (count,), generator=generator)


def test_top5_is_that_of_torchmetrics():
    logits, y = scores()
    assert metrics.top5(logits, y) == pytest.approx(float(MulticlassAccuracy(8, top_k=5, average="micro")(logits, y)))
    assert metrics.top5(logits, y) != metrics.top1(logits, y)


def test_top5_of_few_classes_is_one():
    assert metrics.top5(*scores(classes=4)) == 1.0


@pytest.mark.parametrize("rare", [1.0, 0.3, 0.0])
def test_balanced_accuracy_and_macro_f1_are_those_of_scikit_learn(rare):
    """Also where a class has no example, or is never predicted."""
    logits, y = scores()
    keep = (y > 2) | (torch.rand(len(y), generator=torch.Generator().manual_seed(1)) < rare)
    logits, y = logits[keep] + 0.7 * F.one_hot(y[keep], 8), y[keep]
    if not rare:
        logits[:, 7] = -math.inf  # never predicted
        logits[::9, 0] = 9.0  # predicted, and not there
    predicted = logits.argmax(-1)
    with warnings.catch_warnings(action="ignore"):  # that a class without examples is predicted
        expected = sklearn.metrics.balanced_accuracy_score(y, predicted)
    f1 = sklearn.metrics.f1_score(y, predicted, average="macro")
    assert metrics.balanced(logits, y) == pytest.approx(expected, rel=1e-12)
    assert metrics.macro_f1(logits, y) == pytest.approx(f1, rel=1e-12)
    assert metrics.balanced(logits, y) != pytest.approx(metrics.top1(logits, y), rel=1e-4)


def test_a_class_that_is_never_right_costs_its_share_of_the_classes():
    """Nine in ten are right, of two classes: top-1 0.9, balanced 0.5, F1 (2 · 9 / 19 + 0) / 2."""
    logits, y = torch.tensor([[1.0, 0.0]]).expand(10, -1), torch.tensor([0] * 9 + [1])
    assert metrics.top1(logits, y) == pytest.approx(0.9)
    assert metrics.balanced(logits, y) == pytest.approx(0.5)
    assert metrics.macro_f1(logits, y) == pytest.approx(9 / 19)


def test_confusion_is_that_of_scikit_learn():
    logits, y = scores(classes=5)
    expected = sklearn.metrics.confusion_matrix(y, logits.argmax(-1), labels=range(5))
    assert metrics.confusion(logits, y).tolist() == expected.tolist()


def test_classes_that_do_not_occur_are_in_the_confusion_matrix():
    assert metrics.confusion(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0])).tolist() == [
        [0, 1, 0],
        [0] * 3,
        [0] * 3,
    ]


def test_pseudo_labels_are_counted_one_by_one():
    logits, y = scores()
    y[::3] = -1
    p = (3 * logits).double().softmax(-1)
    known = [
        (float(row.max()) >= 0.6, int(row.argmax()) == int(label))
        for row, label in zip(p, y, strict=True)
        if label >= 0
    ]
    found = metrics.pseudo_labels(3 * logits, y, 0.6)
    assert found["coverage"] == pytest.approx(sum(float(row.max()) >= 0.6 for row in p) / len(p))
    assert found["accuracy"] == pytest.approx(sum(right for _, right in known) / len(known))
    sure = [right for covered, right in known if covered]
    assert found["confident"] == pytest.approx(sum(sure) / len(sure))


def test_pseudo_labels_of_unknown_classes_have_a_coverage_only():
    found = metrics.pseudo_labels(scores()[0], torch.full((400,), -1), 0.6)
    assert math.isnan(found["accuracy"])
    assert math.isnan(found["confident"])
    assert 0 < found["coverage"] < 1
