"""The estimator of scikit-learn: its own checks, and what it adds to them."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

from metapl.registry.errors import InputError
from metapl.sklearn import MetaplClassifier

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

QUICK = {"method": "supervised", "model": "mlp:width=16,depth=1", "steps": 40}
X, Y = load_iris(return_X_y=True)
FEW = np.where(np.arange(150) % 5 == 0, Y, -1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_the_checks_of_scikit_learn():
    """All but one: there −1 is the name of a class."""
    estimator = MetaplClassifier(**QUICK, options={"finetune_steps": 0, "lr": 0.3})
    known = {"check_classifiers_classes": "-1 is no label"}
    found = check_estimator(estimator, expected_failed_checks=known, on_fail=None)
    assert not [one["check_name"] for one in found if one["status"] == "failed"]
    assert sum(one["status"] == "passed" for one in found) > 45


@pytest.mark.parametrize("method", ["mpl", "supervised", "uda"])
def test_a_few_labels(method):
    model = MetaplClassifier(**{**QUICK, "method": method}).fit(X, FEW)
    assert model.score(X, Y) > 0.8
    assert model.classes_.tolist() == [0, 1, 2]
    chances = model.predict_proba(X)
    np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-12)
    assert np.array_equal(chances.argmax(1), model.predict(X))


@pytest.mark.parametrize(
    ("labels", "mark", "classes"),
    [
        (np.array(["a", "b", "c"])[Y], "?", ["a", "b", "c"]),
        (np.array([10, 20, 30])[Y], 0, [10, 20, 30]),
        (Y - 1, None, [-1, 0, 1]),
        (Y.astype(float), -1, [0.0, 1.0, 2.0]),
    ],
)
def test_marks_and_names_of_classes(labels, mark, classes):
    known = np.arange(150) % 5 == 0
    given = [label if one else mark for label, one in zip(labels.tolist(), known, strict=True)]
    model = MetaplClassifier(**QUICK, unlabelled=mark).fit(X, np.array(given, dtype=object))
    assert model.classes_.tolist() == classes
    assert model.score(X, labels) > 0.8
    nan = [label if one else np.nan for label, one in zip(Y.tolist(), known, strict=True)]
    gaps, marked = (MetaplClassifier(**QUICK).fit(X, y).predict(X) for y in (nan, FEW))
    assert np.array_equal(gaps, marked)


def test_examples_without_labels_are_learnt_from():
    alone = MetaplClassifier(**{**QUICK, "method": "uda"}).fit(X[FEW >= 0], FEW[FEW >= 0])
    together = MetaplClassifier(**{**QUICK, "method": "uda"}).fit(X, FEW)
    assert not np.allclose(alone.predict_proba(X), together.predict_proba(X))


def test_pipelines_clones_searches_and_pickles():
    model = make_pipeline(MinMaxScaler(), MetaplClassifier(**QUICK))
    assert cross_val_score(model, X, Y, cv=3).mean() > 0.8
    search = GridSearchCV(model, {"metaplclassifier__steps": [2, 40]}, cv=2).fit(X, Y)
    assert search.best_params_ == {"metaplclassifier__steps": 40}
    fitted = clone(MetaplClassifier(**QUICK, random_state=3)).fit(X, FEW)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_the_seed_is_all_that_is_random():
    fitted = [MetaplClassifier(**QUICK, random_state=seed).fit(X, FEW) for seed in (0, 0, 1)]
    one, other, third = (model.predict_proba(X) for model in fitted)
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"options": {"seed": 1}}, "options: seed is an argument of its own, or follows from the data"),
        ({"options": {"grad": "exct"}}, "unknown estimator 'exct'"),
        ({"method": "mlp"}, "unknown method 'mlp'"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        MetaplClassifier(**{**QUICK, **options}).fit(X, FEW)


def test_one_class_is_refused():
    with pytest.raises(InputError, match="1 class in y: give labels of two classes at least"):
        MetaplClassifier(**QUICK).fit(X, np.where(Y == 0, 0, -1))
