"""What a classical network says against scikit-learn, whose estimators are fitted apart from it."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from metapl import models
from metapl.core import rng
from metapl.core.types import Variables
from metapl.data.form import Form
from metapl.methods.classical import linear, logistic, scaling, self_training, spreading
from metapl.methods.classical.model import model
from metapl.methods.seen import Seen
from metapl.models import fitted
from metapl.models.fitted import Linear, Neighbours, Scaled
from metapl.nn import functional

MEAN, STD = 3.0, 2.0


def blobs(classes=3, examples=240, features=6, seed=0):
    """Numbers as they are in a file, and their classes."""
    y = torch.arange(examples) % classes
    centres = 2.0 * rng.normal(rng.key(seed + 100), (classes, features))
    return 5.0 + centres[y] + rng.normal(rng.key(seed), (examples, features)), y


def seen(x, y, labelled, validation=0, kind="features"):
    """The first examples labelled, the next ones in the validation part; a source has standardised them."""
    details = {"mean": [MEAN] * x.shape[1], "std": [STD] * x.shape[1]}
    form = Form(kind, (x.shape[1],), tuple(map(str, range(int(y.max()) + 1))), details)
    return Seen((x - MEAN) / STD, y[: labelled + validation], labelled, 0, form, rng.key(7))


def said(found, x):
    """The probabilities of a fitted network for numbers as they are in a file."""
    (network,) = found.networks.values()
    return torch.softmax(model().apply(*network, (x - MEAN) / STD, train=False)[0].double(), -1).numpy()


def chosen_inputs(found, x, pool):
    """The inputs of scikit-learn by the words of the choice; `pool` is what the scaling is fitted to."""
    kind = found.chosen.split(",")[0]
    make = {
        "as stored": lambda part: part,
        "unit length": normalize,
        "standardised": StandardScaler().fit(pool).transform,
    }[kind]
    centre = make(pool).mean(0)
    length = np.sqrt(((make(pool) - centre) ** 2).sum(1).mean())
    return (make(x) - centre) / length


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression(classes):
    x, y = blobs(classes)
    found = logistic.fit(seen(x, y, 40))
    z, truth = chosen_inputs(found, x.numpy(), x.numpy()), LogisticRegression(C=100, max_iter=200)
    assert "C = 100" in found.chosen
    expected = truth.fit(z[:40].astype(np.float32), y[:40]).predict_proba(z.astype(np.float32))
    np.testing.assert_allclose(said(found, x), expected, atol=2e-5)


def test_the_same_weights_say_the_same_to_six_digits():
    x, y = blobs()
    z = x.numpy() - 5
    truth = LogisticRegression(C=3.0, max_iter=200).fit(z, y)
    made = Linear(6, 3, 6)
    made.scaled.centre = torch.full((6,), 5.0)
    weight, bias = linear.weights(truth, 3)
    found = linear.network(made.scaled, weight, bias)
    logits, _ = model().apply(*found, x, train=False)
    np.testing.assert_allclose(torch.softmax(logits, -1), truth.predict_proba(z), atol=1e-6)


def test_a_class_that_no_example_has_is_never_said():
    x, y = blobs(classes=3)
    some = y != 1
    for several in (some, y == 2):
        weight, bias = linear.fit(x[several] - 5, y[several], 1.0, 4)
        shares = torch.softmax((x - 5) @ weight.T + bias, -1)
        absent = sorted(set(range(4)) - set(y[several].tolist()))
        assert shares[:, absent].max() < 1e-12
    two = LogisticRegression(C=1.0).fit((x[some] - 5).numpy(), y[some].numpy()).predict_proba((x - 5).numpy())
    weight, bias = linear.fit(x[some] - 5, y[some], 1.0, 4)
    np.testing.assert_allclose(torch.softmax((x - 5) @ weight.T + bias, -1)[:, [0, 2]], two, atol=1e-5)


def test_self_training():
    x, y = blobs()
    found = self_training.fit(seen(x, y, 12))
    z = chosen_inputs(found, x.numpy(), x.numpy()).astype(np.float32)
    hidden = np.where(np.arange(len(y)) < 12, y, -1)
    truth = SelfTrainingClassifier(LogisticRegression(C=100, max_iter=200), threshold=0.75, max_iter=10).fit(z, hidden)
    assert (truth.labeled_iter_ > 0).sum() > 100  # it did label others
    np.testing.assert_allclose(said(found, x), truth.predict_proba(z), atol=2e-4)


@pytest.mark.parametrize("ranks", [[0.2] * 5, [0.5, 0.25, 0.15, 0.07, 0.03]])
def test_votes_of_neighbours(ranks):
    x, _ = blobs()
    votes = torch.softmax(rng.normal(rng.key(3), (200, 3)), -1)
    made = Neighbours(6, 3, 200, 5, 6)
    made.scaled.centre = torch.full((6,), 5.0)
    made.examples, made.ranks, made.votes = x[:200] - 5, torch.tensor(ranks), torch.nn.Parameter(votes)
    truth = KNeighborsRegressor(5, weights=lambda distances: np.tile(ranks, (len(distances), 1)))
    expected = truth.fit(x[:200].double().numpy(), votes.double().numpy()).predict(x[200:].double().numpy())
    np.testing.assert_allclose(torch.softmax(made(x[200:]), -1).detach(), expected, atol=1e-6)


def test_spreading_votes_with_the_distributions_of_the_pool():
    x, y = blobs()
    found = spreading.fit(seen(x[:200], y[:200], 3))
    assert found.chosen.startswith("unit length, 20 neighbours, alpha 0.8, then votes of 20 neighbours; not chosen")
    (network,) = found.networks.values()
    truth = KNeighborsRegressor(20).fit(normalize(x[:200]), network.params["votes"])
    np.testing.assert_allclose(said(found, x[200:]), truth.predict(normalize(x[200:])), atol=1e-5)
    truth = LabelSpreading(kernel="knn", n_neighbors=20, alpha=0.8).fit(
        normalize(x[:200]), np.where(np.arange(200) < 3, y[:200], -1)
    )
    np.testing.assert_allclose(network.params["votes"], truth.label_distributions_, atol=1e-5)


# ---------------------------------------------------------------- scaling


def test_the_scalings_of_arrays():
    x, y = blobs()
    given = seen(x, y, 3)
    expected = {"as stored": x, "unit length": normalize(x), "standardised": StandardScaler().fit_transform(x)}
    assert list(scaling.SCALINGS) == list(expected)
    for name, truth in expected.items():
        made = scaling.fit(name, given.x, given.form)
        np.testing.assert_allclose(made.before(given.x), truth, atol=1e-5)
        z = made(given.x)
        assert z.mean(0).abs().max() < 1e-5
        assert z.square().sum(1).mean() == pytest.approx(1, abs=1e-5)


def test_images_are_grey_levels_and_tables_their_features():
    x = torch.rand(30, 3 * 4 * 5, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    grey = x.reshape(30, 3, 4, 5) * std[:, None, None] + mean[:, None, None]
    form = Form("images", (3, 4, 5), ("a", "b"), {"mean": mean.tolist(), "std": std.tolist()})
    np.testing.assert_allclose(scaling.fit("as stored", x, form).before(x), grey.flatten(1), atol=1e-6)
    rows = Form("table", (60,), ("a", "b"), {"columns": []})
    assert torch.equal(scaling.fit("as stored", x, rows).before(x), x)
    assert scaling.preferred(rows)[0] == "as stored"
    assert scaling.preferred(form)[0] == "unit length"


def test_one_mean_for_all_numbers_of_an_example():
    form = Form("arrays", (2, 3), ("a", "b"), {"mean": 4.0, "std": 2.0})
    x = torch.arange(24.0).reshape(4, 6)
    assert torch.equal(scaling.fit("as stored", x, form).before(x), 2 * x + 4)


def test_a_feature_that_never_changes_and_an_example_of_zeros():
    form = Form("arrays", (2,), ("a", "b"), {"mean": [0.0, 0.0], "std": [1.0, 1.0]})
    x = torch.tensor([[1.0, 0.1], [3.0, 0.1], [0.0, 0.0]])
    assert scaling.fit("standardised", x[:2], form).before(x[:2])[:, 1].tolist() == [0.0, 0.0]
    assert scaling.fit("unit length", x, form).before(x)[2].tolist() == [0.0, 0.0]
    assert scaling.fit("as stored", torch.ones(4, 2), form)(torch.ones(4, 2)).isfinite().all()


def test_many_features_become_principal_components():
    x = rng.normal(rng.key(1), (400, 300)) * torch.linspace(5, 0.1, 300)
    form = Form("arrays", (300,), ("a", "b"), {"mean": [0.0] * 300, "std": [1.0] * 300})
    found = scaling.fit("as stored", x, form)(x)
    truth = PCA(scaling.COMPONENTS, svd_solver="full").fit_transform(x)
    assert found.shape == truth.shape
    # Distances are what neighbours and penalties see; the components themselves have no sign.
    far, expected = (torch.cdist(one, one) for one in (found, torch.from_numpy(truth)))
    np.testing.assert_allclose(far / far.mean(), expected / expected.mean(), atol=0.02)


# ---------------------------------------------------------------- the networks themselves


def test_a_text_follows_from_the_tensors():
    votes, regression = Neighbours(6, 3, 20, 5, 4), Linear(6, 3, 4)
    for made, text in (
        (votes, "neighbours:examples=20,nearest=5,components=4"),
        (regression, "scaled-linear:components=4"),
    ):
        tensors = {**dict(made.named_parameters()), **dict(made.named_buffers())}
        assert fitted.text(tensors) == text
        again = models.build(text, (2, 3), 3)
        assert {name: one.shape for name, one in again.state_dict().items()} == {
            name: one.shape for name, one in tensors.items()
        }
    assert fitted.text({"votes": torch.zeros(())}) == "neighbours:examples=0,nearest=0,components=0"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fitted.neighbours((2,), 3, examples=20_001), "at most 20000"),
        (lambda: fitted.neighbours((2,), 3, examples=4, nearest=5), "nearest ≤ examples"),
        (lambda: fitted.neighbours((2,), 3, nearest=0), "nearest ≤ examples"),
        (lambda: fitted.neighbours((2,), 3, components=3), "at most the 2 features"),
        (lambda: fitted.scaled_linear((2,), 3, components=-1), "at most the 2 features"),
    ],
)
def test_sizes_that_make_no_network(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_model_of_any_size_is_that_of_its_own_module():
    for made in (Neighbours(6, 3, 20, 5, 4), Linear(6, 3, 4)):
        tensors = Variables({name: one.detach() for name, one in made.named_parameters()}, dict(made.named_buffers()))
        x = rng.normal(rng.key(0), (9, 6))
        own = functional.from_module(lambda made=made: made)
        expected, _ = own.apply(*tensors, x, train=False)
        found, buffers = model().apply(*tensors, x, train=False)
        assert torch.equal(found, expected)
        assert buffers.keys() == tensors.buffers.keys()
    with pytest.raises(NotImplementedError, match="no beginning"):
        model().init(rng.key(0))


def test_inputs_may_be_of_another_precision():
    assert Scaled(4, 2)(torch.ones(3, 2, 2, dtype=torch.float64)).dtype == torch.float32
