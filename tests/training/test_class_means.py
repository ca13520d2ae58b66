"""Heads that start from the class means: against numpy and scikit-learn, alone and in a population."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from metapl import methods
from metapl.core import rng
from metapl.registry.errors import InputError
from metapl.training import phases, population
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare

OPTIONS = {
    "method": "supervised",
    "labels": 12,
    "steps": 1,
    "finetune_steps": 0,
    "baselines": False,
    "report_every": 1,
    "guide": "none",
}


@pytest.fixture
def data(tmp_path):
    """Features whose class means lie on one line through the origin for two of three classes."""
    generator = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 40)
    centres = np.array([[3.0, 0, 1, 0], [9.0, 0, 3, 0], [0, 2.0, 0, -1]])
    x = (centres[y] + generator.normal(size=(120, 4))).astype("float32")
    np.savez(tmp_path / "own.npz", x=x, y=y)
    return f"{tmp_path / 'own.npz'}:scale=none"


def config(data, **options):
    return TrainConfig(
        **{**OPTIONS, "data": data, "model": "linear:start=prototypes", "method": "supervised", **options}
    )


def labelled(experiment):
    index = experiment.split.labelled
    return experiment.data.augment.prepare(experiment.data.x[index]).numpy(), experiment.data.y[index].numpy()


def started(experiment):
    return experiment.trainable(experiment.models.student, "lr").model.init(rng.key(0))[0]


def test_linear_starts_as_the_classifier_by_the_nearest_class_mean(data):
    experiment = prepare(config(data))
    x, y = labelled(experiment)
    model = experiment.models.student
    params = started(experiment)
    fresh = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * 4
    logits, _ = model.apply(params, {}, fresh, train=False)
    truth = NearestCentroid().fit(x, y)
    assert (logits.argmax(1).numpy() == truth.predict(fresh.numpy())).all()
    squares = ((fresh.numpy()[:, None] - truth.centroids_) ** 2).sum(2)
    gaps = logits.detach().numpy() + squares / 2  # what all classes share
    np.testing.assert_allclose(gaps, np.broadcast_to(gaps[:, :1], gaps.shape), atol=1e-4)


def test_cosine_starts_with_the_directions_of_the_class_means(data):
    experiment = prepare(config(data, model="cosine:start=prototypes"))
    x, y = labelled(experiment)
    means = np.stack([x[y == one].mean(0) for one in range(3)])
    truth = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(started(experiment)["1.weight"], truth, rtol=1e-6)


def test_teacher_and_student_start_each_as_its_own_text_says(data):
    experiment = prepare(config(data, method="mpl", teacher_model="cosine"))
    state = phases.prepare_phase(experiment, methods.plan(experiment.config)[0], {})
    first = state.method.init(rng.key(0))
    assert not first.teacher.params["1.weight"].any()
    assert first.student.params["1.weight"].all()


def test_without_an_example_of_a_class_its_weights_are_zero(data):
    given = prepare(config(data))
    known = given.split.labelled[given.data.y[given.split.labelled] != 1]
    params = started(given._replace(split=given.split._replace(labelled=known)))
    assert [bool(row.any()) for row in params["1.weight"]] == [True, False, True]
    assert params["1.bias"][1] == 0


@pytest.mark.parametrize("method", ["supervised", "mpl"])
def test_each_member_of_a_population_starts_from_its_own_labels(data, method):
    configs = [config(data, method=method, seed=seed) for seed in range(3)]
    alone = [phases.finish(phases.run(prepare(one))).networks for one in configs]
    events = list(population.run(population.members(configs)))
    found = [event.result.networks for _, event in events if isinstance(event, phases.Finished)]
    assert not torch.allclose(*[one[next(iter(one))].params["1.weight"] for one in alone[:2]])
    for one, other in zip(found, alone, strict=True):
        for name in other:
            torch.testing.assert_close(one[name].params, other[name].params, rtol=1e-4, atol=1e-5)


def test_a_network_that_knows_no_means_starts_as_it_is(data):
    experiment = prepare(config(data, model="mlp:width=4"))
    assert experiment.models.student.start is None
    params, _ = experiment.models.student.init(rng.key(0))
    assert all(torch.equal(value, params[name]) for name, value in started(experiment).items())


@pytest.mark.parametrize("model", ["linear:start=means", "cosine:start=means", "linear:start=prototypes,bias=false"])
def test_what_cannot_be_started_so_is_refused(data, model):
    with pytest.raises(InputError, match="start="):
        prepare(config(data, model=model))
