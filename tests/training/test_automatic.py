"""What `auto` becomes for each form of data."""

from dataclasses import asdict

import pytest

from metapl.data.form import Form
from metapl.training.automatic import settle
from metapl.training.config import TrainConfig

MANY, TWO = tuple("abcd"), ("a", "b")


def form(kind, shape, classes=MANY):
    return Form(kind, shape, classes, {})


FORMS = {
    "small grey images": (form("images", (1, 28, 28)), ("mlp", "consensus", "uniform")),
    "the largest of them": (form("images", (1, 32, 32)), ("mlp", "consensus", "uniform")),
    "large grey images": (form("images", (1, 33, 32)), ("convnet", "none", "uniform")),
    "colour images": (form("images", (3, 8, 8)), ("convnet", "none", "uniform")),
    "colour images of two classes": (form("images", (3, 8, 8), TWO), ("convnet", "none", "none")),
    "images of 63 pixels": (form("images", (3, 70, 63)), ("convnet", "none", "uniform")),
    "images of 64 pixels": (form("images", (3, 64, 70)), ("convnet:shrink=2", "none", "uniform")),
    "images of 300 pixels": (form("images", (1, 300, 400)), ("convnet:shrink=9", "none", "uniform")),
    "vectors": (form("arrays", (7,)), ("mlp", "consensus", "uniform")),
    "a table of two classes": (form("table", (7,), TWO), ("mlp", "consensus", "none")),
    "a table of three": (form("table", (7,), MANY[:3]), ("mlp", "consensus", "uniform")),
    "features": (form("features", (64,)), ("cosine", "consensus", "uniform")),
}


@pytest.mark.parametrize(("given", "expected"), FORMS.values(), ids=FORMS)
def test_each_form(given, expected):
    found = settle(TrainConfig(), given)
    assert (found.method, found.grad, found.embed) == ("uda", "exact", "none")
    assert (found.model, found.guide, found.alignment) == expected
    assert "auto" not in (found.method, found.grad, found.model, found.guide, found.alignment)


@pytest.mark.parametrize("grad", ["exact", "none", "first-order:baseline=0"])
def test_an_estimator_makes_the_method_mpl(grad):
    found = settle(TrainConfig(grad=grad), FORMS["vectors"][0])
    assert (found.method, found.grad) == ("mpl", grad)
    assert settle(TrainConfig(grad=grad, method="reduced"), FORMS["vectors"][0]).method == "reduced"


@pytest.mark.parametrize(("given", "_"), FORMS.values(), ids=FORMS)
def test_what_is_given_stays(given, _):
    config = TrainConfig(method="mpl", grad="none", model="wrn", guide="logistic", alignment="fair", seed=4, embed="x")
    assert settle(config, given) == config


def test_nothing_else_is_changed_and_what_is_settled_stays():
    config, settled = TrainConfig(lr=0.5, steps=7), settle(TrainConfig(lr=0.5, steps=7), FORMS["features"][0])
    changed = {name for name, value in asdict(settled).items() if value != getattr(config, name)}
    assert changed == {"embed", "method", "grad", "model", "guide", "alignment"}
    assert settle(settled, FORMS["colour images"][0]) == settled
