"""Own rows of views and of batches, against those rows of the whole."""

import dataclasses
from dataclasses import replace

import pytest
import torch

from metapl import methods
from metapl.core import rng
from metapl.core.collectives import Processes
from metapl.data import loader
from metapl.data.augment import base, crops, image_views, randaugment, stored, tabular
from metapl.data.augment.base import Augment, compose, identity
from metapl.training import experiment, own_rows, phases
from metapl.training.config import TrainConfig

COUNT = 3
EVERY = [Processes(rank, COUNT, lambda flat: COUNT * flat) for rank in range(COUNT)]
"""All of one mind."""
IMAGES = rng.randint(rng.key(0), (12, 3, 16, 16), 256).to(torch.uint8)
VECTORS = rng.normal(rng.key(0), (12, 5))

VIEWS = {
    "shift": (base.shift(2), IMAGES.float()),
    "noise": (base.noise(0.1), VECTORS),
    "flip": (crops.flip(), IMAGES),
    "pad_crop": (crops.pad_crop(3), IMAGES),
    "cutout": (crops.cutout(4), IMAGES),
    "random_resized_crop": (crops.random_resized_crop(16), IMAGES),
    "randaugment": (randaugment.randaugment(probability=(1.0, 1.0)), IMAGES),
    "pick": (stored.pick(0, 4), rng.normal(rng.key(0), (12, 4, 5))),
    "noise of features": (tabular.noise(0.5, [True, False, True, True, True]), VECTORS),
    "relative noise": (tabular.relative_noise(0.5), VECTORS),
    "several": (compose(crops.flip(), crops.pad_crop(2), randaugment.randaugment(), crops.cutout(3)), IMAGES),
}


@pytest.mark.parametrize("name", list(VIEWS))
def test_own_rows_of_a_view_are_those_of_the_whole(name):
    view, x = VIEWS[name]
    whole = view(x, rng.key(1))
    assert not torch.equal(whole, x)
    for processes in EVERY:
        own = own_rows.augment(Augment(view, view, view), x, processes)
        found = own.weak(x, rng.key(1)) if x.is_floating_point() else own_rows._view(view, processes)(x, rng.key(1))
        assert torch.equal(found[processes.rank :: COUNT], whole[processes.rank :: COUNT])
        others = torch.ones(len(x), dtype=torch.bool)
        others[processes.rank :: COUNT] = False
        assert not found[others].any()


def test_outside_of_a_part_views_are_as_they_were():
    view, x = VIEWS["several"]
    with base.part_of_batch(torch.tensor([1, 5]), len(x)):
        part = view(x[[1, 5]], rng.key(1))
    assert torch.equal(view(x, rng.key(1))[[1, 5]], part)


def scaled(x):
    return x / 255.0


def test_a_network_sees_nan_in_the_rows_of_others():
    own = own_rows.augment(Augment(crops.flip(), crops.flip(), identity, scaled), IMAGES, EVERY[1])
    found = own.prepare(own.strong(own.shared(IMAGES, rng.key(0)), rng.key(1)))
    assert torch.equal(found[1::COUNT], scaled(crops.flip()(IMAGES, rng.key(1)))[1::COUNT])
    assert found[0::COUNT].isnan().all()
    assert found[2::COUNT].isnan().all()


@pytest.mark.parametrize(
    ("view", "x"),
    [
        pytest.param(tabular.swap(0.5, range(5)), VECTORS, id="looks at other rows"),
        pytest.param(base.erase(3), IMAGES.float(), id="the mean of the batch"),
        pytest.param(lambda x, key: x + rng.normal(key, x.shape), VECTORS, id="draws for what it is given"),
        pytest.param(identity, IMAGES, id="whole numbers for a network"),
    ],
)
def test_views_that_need_the_whole_batch_get_it(view, x):
    assert all(own_rows.augment(Augment(identity, view), x, one) is None for one in EVERY)


def test_all_processes_have_own_rows_or_none_has():
    unlike = Processes(0, COUNT, lambda flat: flat + 1)
    assert own_rows.augment(Augment(identity, identity), VECTORS, EVERY[0]) is not None
    assert own_rows.augment(Augment(identity, identity), VECTORS, unlike) is None


def test_a_view_that_looks_at_other_rows_is_refused_a_part():
    """However seldom it changes anything."""
    view = tabular.swap(1e-9, range(5))
    assert own_rows.augment(Augment(identity, view), VECTORS, EVERY[0]) is None


BASE = TrainConfig(
    labels=30, validation=0, batch=24, labelled_batch=12, method="mpl", baselines=False, device="cpu", guide="none"
)


@pytest.fixture(scope="module")
def prepared():
    return experiment.prepare(BASE)


def with_images(prepared, config=BASE, processes=EVERY[2]):
    data = prepared.data._replace(augment=image_views.crop(prepared.data.form))
    return prepared._replace(config=config, data=data, processes=processes)


NEEDS_WHOLE = {
    "one process": (BASE, "mpl", Processes()),
    "pseudo-labels": (BASE, "pseudo-labels", EVERY[0]),
    "reduced": (BASE, "reduced", EVERY[0]),
    "mixing": (replace(BASE, mixing="mixup"), "mpl", EVERY[0]),
    "groups": (replace(BASE, batch_norm_batch=4), "mpl", EVERY[0]),
    "groups that do not divide": (replace(BASE, batch_norm_groups=4), "mpl", EVERY[0]),
    "half an exam": (replace(BASE, exam="apart"), "mpl", EVERY[0]),
    "part of a batch": (replace(BASE, grad="exact:fraction=0.5"), "mpl", EVERY[0]),
    "odd batch": (replace(BASE, batch=25), "mpl", EVERY[0]),
    "odd labelled batch": (replace(BASE, labelled_batch=10), "mpl", EVERY[0]),
    "odd batch of finetuning": (replace(BASE, finetune_batch=10), "finetune", EVERY[0]),
    "more than there are": (replace(BASE, batch=3000), "mpl", EVERY[0]),
}


@pytest.mark.parametrize("name", list(NEEDS_WHOLE))
def test_where_own_rows_do_not_suffice_the_whole_batch_is_read(prepared, name):
    config, phase, processes = NEEDS_WHOLE[name]
    assert own_rows.views(with_images(prepared, config, processes), phase) is None
    assert own_rows.views(with_images(prepared), "mpl") is not None


class Watched:
    """Examples that say which of them are read."""

    def __init__(self, x):
        self.x, self.read = x, []
        self.shape, self.dtype = x.shape, x.dtype

    def __len__(self):
        return len(self.x)

    def __getitem__(self, places):
        self.read += torch.as_tensor(places).tolist()
        return self.x[places]


def test_a_process_reads_its_own_rows(prepared):
    one = with_images(prepared)
    watched = Watched(one.data.x)
    drawn = loader.positions(one.split, (12, 24), one.keys.batches, 2)
    batch = own_rows.batches(watched, one.data.y, drawn, EVERY[2])(5)
    whole = loader.gather(one.data.x, one.data.y, drawn(5))
    for found, expected in zip(batch, whole, strict=True):
        assert found.shape == expected.shape
        assert torch.equal(found[2::COUNT], expected[2::COUNT])
    assert torch.equal(batch.y_labelled, whole.y_labelled)
    labelled, unlabelled = drawn(5)
    assert sorted(watched.read) == sorted([*labelled[2::COUNT].tolist(), *unlabelled[2::COUNT].tolist()])
    assert not batch.x_unlabelled[0::COUNT].any()


def test_nothing_is_read_of_what_a_method_never_sees(prepared):
    drawn = loader.positions(prepared.split, (12, 0), prepared.keys.batches)
    batch = own_rows.batches(prepared.data.x, prepared.data.y, drawn, EVERY[1])(0)
    assert batch.x_unlabelled.shape == (0, *prepared.data.x.shape[1:])


def test_a_phase_has_own_rows_where_they_suffice(prepared):
    spec = next(spec for spec in methods.plan(BASE) if spec.name == "mpl")
    batch = phases.prepare_phase(with_images(prepared), spec, {}).batches(0)
    assert not batch.x_labelled[1::COUNT].any()
    spoilt = dataclasses.replace(BASE, batch=25)
    batch = phases.prepare_phase(with_images(prepared, spoilt), spec, {}).batches(0)
    assert batch.x_labelled[1::COUNT].any()
