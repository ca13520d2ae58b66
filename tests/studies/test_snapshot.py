"""A point of training, and the draws of an estimator there."""

from unittest import mock

import pytest
import torch
from points import TINY, build, loop

from metapl import estimators
from metapl.core import rng, torch_private, tree
from metapl.core.targets import TARGETS
from metapl.estimators import AVAILABLE, ESTIMATORS
from metapl.methods.mpl import meta_pseudo_labels
from metapl.registry import notation
from metapl.studies import snapshot
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def point():
    return build()


def test_the_assignment_is_that_of_the_step_that_comes_next(point):
    """Losses of the student and of the exam, as the training step itself reports them."""
    teacher, student = snapshot._trainables(point.experiment)
    augment, numbers = point.experiment.data.augment, point.experiment.recipe
    method = meta_pseudo_labels(teacher, student, estimators.exact(), TARGETS["soft"], augment, numbers)
    batch = snapshot.phases.batches(point.experiment)(point.step)
    key = rng.fold_in(rng.split(point.experiment.keys.of("mpl"), 2)[1], point.step)
    _, told = method.step(point.state, batch, key)
    for dtype, tolerance in ((torch.float32, 0.0), (torch.float64, 1e-4)):
        feedback, _ = estimators.exact().estimate(snapshot.assign(point, "soft", dtype), ())
        assert feedback.grads[0].dtype == feedback.outer.dtype == dtype
        assert feedback.outer.item() == pytest.approx(told["exam"].item(), rel=tolerance)
        assert feedback.inner.item() == pytest.approx(told["student"].item(), rel=tolerance)
        size = tree.norm(list(feedback.grads)) / feedback.scale
        assert size.item() == pytest.approx(told["feedback"].item(), rel=max(tolerance, 1e-6))


def test_the_learning_rates_stay_what_they_are():
    """A cosine would be at zero at the end of a run, and every feedback with it."""
    experiment = prepare(TrainConfig(**TINY, optimizer="sgd", clip=0.0, lr=0.3, teacher_lr=0.2, steps=3))
    weight = {"w": torch.ones(3, dtype=torch.float64)}
    for trainable, rate in zip(snapshot._trainables(experiment), (0.2, 0.3), strict=True):
        state = trainable.optimizer.init(weight)
        for _ in range(5):
            change, state = trainable.optimizer.update(weight, state, weight)
            torch.testing.assert_close(change["w"], torch.full((3,), -rate).double())


def test_fresh_weights_and_later_ones_differ(point):
    fresh = build(steps=0)
    assert fresh.step == 0
    assert not torch.equal(*(one.state.student.params["1.weight"] for one in (fresh, point)))


RANDOM = ["first-order", "first-order:baseline=0,reduction=sum", "score", "taylor", "gumbel", "exact:fraction=0.5"]


@pytest.mark.parametrize("name", [*RANDOM, "evolution:pairs=1", "forward:directions=1", "evograd:children=2"])
def test_vectorised_draws_are_those_of_a_loop(point, name):
    estimator = notation.build(name, AVAILABLE, "estimator")
    given = snapshot.assign(point, estimator.targets[0], torch.float64)
    expected = loop(estimator, given, 7)
    for together in (1, 3):
        drawn = snapshot.draw(estimator, given, 7, together, drawn=estimator.targets[0] == "sampled")
        torch.testing.assert_close(drawn, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", ["score", "first-order:baseline=0"])
def test_draws_without_memory_are_vectorised(point, name, monkeypatch):
    """`first-order:baseline=0` has a memory that does not move."""
    vectorised = mock.Mock(side_effect=torch.vmap)
    monkeypatch.setattr(torch, "vmap", vectorised)
    given = snapshot.assign(point, "sampled", torch.float64)
    snapshot.draw(notation.build(name, AVAILABLE, "estimator"), given, 5, 5, drawn=True)
    assert vectorised.called


def test_memory_goes_through_the_draws_in_order(point):
    given = snapshot.assign(point, "sampled", torch.float64)
    drawn = snapshot.draw(estimators.first_order(), given, 6, 6, drawn=True)
    torch.testing.assert_close(drawn, loop(estimators.first_order(), given, 6), rtol=1e-12, atol=0)
    assert not torch.allclose(drawn, loop(estimators.first_order(baseline=0.0), given, 6))


@pytest.mark.parametrize("name", ["exact", "unroll", "difference", "none"])
def test_without_randomness_one_draw_is_enough(point, name):
    given = snapshot.assign(point, "soft", torch.float64)
    assert snapshot.draw(ESTIMATORS[name](), given, 9, 4, drawn=False).shape == (1, 160)


def _peeping(point):
    """An estimator that looks at its data, which `torch.vmap` refuses."""
    inner = estimators.score()

    def estimate(instance, memory):
        feedback, memory = inner.estimate(instance, memory)
        float(feedback.outer)
        return feedback, memory

    return inner._replace(estimate=estimate)


def _deceptive(point):
    """An estimator that is another one under a transform."""
    inner = estimators.score()

    def estimate(instance, memory):
        feedback, memory = inner.estimate(instance, memory)
        factor = 2.0 if torch_private.inside_transform() else 1.0
        return feedback._replace(grads=tuple(factor * one for one in feedback.grads)), memory

    return inner._replace(estimate=estimate)


@pytest.mark.parametrize("make", [_peeping, _deceptive])
def test_where_vectorising_fails_there_is_a_loop(point, make):
    given = snapshot.assign(point, "sampled", torch.float64)
    drawn = snapshot.draw(make(point), given, 5, 5, drawn=True)
    torch.testing.assert_close(drawn, loop(estimators.score(), given, 5), rtol=1e-12, atol=0)


def test_batch_normalisation_falls_back_to_the_loop():
    normed = build(model="convnet:width=4,depth=1,norm=batch", steps=1)
    given = snapshot.assign(normed, "sampled", torch.float64)
    drawn = snapshot.draw(estimators.score(), given, 4, 4, drawn=True)
    torch.testing.assert_close(drawn, loop(estimators.score(), given, 4), rtol=1e-9, atol=1e-14)
