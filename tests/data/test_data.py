"""Splits, batches, augmentations and sources, against loops over single images and scikit-learn."""

import dataclasses

import numpy as np
import pytest
import torch
from asserts import assert_pure
from hypothesis import settings
from sklearn import datasets, metrics, preprocessing

from metapl.core import rng
from metapl.data.augment import base
from metapl.data.sources import EMBEDDED
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare

quick = settings(deadline=None, derandomize=True, database=None, max_examples=60)


# ---------------------------------------------------------------- augmentations


def images(count=300, height=5, width=6, channels=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, channels, height, width, generator=generator)


def shifted(image, pixels):
    """Every shift of one image, by numpy: the window of the padded image at each offset."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (pixels, pixels), (pixels, pixels)), mode="edge")
    offsets = [(i, j) for i in range(2 * pixels + 1) for j in range(2 * pixels + 1)]
    return {(i, j): padded[:, i : i + height, j : j + width] for i, j in offsets}


@pytest.mark.parametrize("pixels", [0, 1, 2])
def test_shift_moves_every_image_by_an_offset_of_its_own(pixels):
    x = images()
    found = base.shift(pixels)(x, rng.key(0))
    taken = []
    for before, after in zip(x.numpy(), found.numpy(), strict=True):
        fitting = [offset for offset, window in shifted(before, pixels).items() if np.array_equal(window, after)]
        assert len(fitting) == 1
        taken += fitting
    assert len(set(taken)) == (2 * pixels + 1) ** 2


def test_shift_moves_all_channels_together_and_repeats_the_edge():
    x = torch.arange(3.0).repeat(1, 2, 3, 1)  # every row is 0 1 2
    rows = {tuple(base.shift(1)(x, rng.key(seed))[0, channel, 1].tolist()) for seed in range(30) for channel in (0, 1)}
    assert rows == {(0.0, 1.0, 2.0), (0.0, 0.0, 1.0), (1.0, 2.0, 2.0)}


def erased(shape, side):
    """Every square that may be blanked, as masks by two loops; the centre is anywhere in the image."""
    height, width = shape
    masks = []
    for row in range(height):
        for column in range(width):
            mask = np.zeros(shape, dtype=bool)
            top, left = row - (side - 1) // 2, column - (side - 1) // 2
            mask[max(top, 0) : top + side, max(left, 0) : left + side] = True
            masks.append(mask)
    return masks


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_erase_blanks_one_square_of_every_image(side):
    x = images(count=600)
    found = base.erase(side)(x, rng.key(0))
    squares = [mask.tobytes() for mask in erased((5, 6), side)]
    seen = set()
    for before, after in zip(x.numpy(), found.numpy(), strict=True):
        changed = before != after
        assert np.array_equal(changed[0], changed[1])
        assert changed[0].tobytes() in squares
        np.testing.assert_allclose(after[changed], x.mean().item(), rtol=1e-5)
        seen.add(changed[0].tobytes())
    assert seen == set(squares)


def test_erase_of_no_pixels_is_the_identity():
    assert torch.equal(base.erase(0)(images(), rng.key(0)), images())


@pytest.mark.parametrize("std", [0.1, 2.0])
def test_noise_has_its_standard_deviation(std):
    """Five standard errors of mean and variance; neighbours and examples are uncorrelated."""
    x = images(count=400)
    drawn = ((base.noise(std)(x, rng.key(0)) - x) / std).double().flatten(1)
    total = drawn.numel()
    assert abs(float(drawn.mean())) < 5 / total**0.5
    assert abs(float(drawn.var()) - 1) < 5 * (2 / total) ** 0.5
    assert abs(float((drawn[:, 1:] * drawn[:, :-1]).mean())) < 5 / total**0.5
    assert abs(float((drawn[1:] * drawn[:-1]).mean())) < 5 / total**0.5


VIEWS = {
    "identity": base.identity,
    "shift": base.shift(1),
    "noise": base.noise(0.3),
    "erase": base.erase(2),
    "compose": base.compose(base.shift(1), base.noise(0.3), base.erase(2)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", VIEWS)
def test_views_are_pure_and_keep_shape_and_dtype(name, dtype):
    x = images(count=8).to(dtype)
    found = assert_pure(VIEWS[name], x, rng.key(0))
    assert found.shape == x.shape
    assert found.dtype == dtype
    assert torch.equal(found, x) == (name == "identity")
    assert torch.equal(VIEWS[name](x, rng.key(1)), found) == (name == "identity")


@pytest.mark.parametrize("name", sorted(set(VIEWS) - {"identity"}))
def test_the_same_image_is_drawn_anew_in_every_place_of_a_batch(name):
    x = images(count=1).expand(200, -1, -1, -1)
    distinct = len(VIEWS[name](x, rng.key(0)).unique(dim=0))
    assert distinct == {"shift": 9, "erase": 30, "noise": 200, "compose": 200}[name]


def test_composed_views_have_keys_of_their_own():
    """The same noise twice would have twice the standard deviation, not √2 times."""
    x = torch.zeros(4000, 1, 1, 1)
    found = base.compose(base.noise(1.0), base.noise(1.0))(x, rng.key(0))
    assert float(found.std()) == pytest.approx(2**0.5, rel=0.06)


def test_compose_goes_from_left_to_right():
    double, more = (lambda x, key: 2 * x), (lambda x, key: x + 1)
    assert float(base.compose(double, more)(torch.tensor([3.0]), rng.key(0))) == 7.0


# ---------------------------------------------------------------- sources


@pytest.mark.parametrize("name", EMBEDDED)
def test_sources_keep_to_their_types(name):
    data = EMBEDDED[name]()
    assert data.x.dtype == data.x_test.dtype == torch.float32
    assert data.y.dtype == data.y_test.dtype == torch.int64
    assert len(data.x) == len(data.y)
    assert len(data.x_test) == len(data.y_test)
    assert data.y.unique().tolist() == data.y_test.unique().tolist() == list(range(data.classes))
    for view in (data.augment.weak, data.augment.strong, data.augment.shared):
        assert view(data.x[:3], rng.key(0)).shape == data.x[:3].shape
    assert tuple(data.x.shape[1:]) == data.form.shape


@pytest.mark.parametrize("name", EMBEDDED)
def test_sources_are_the_same_every_time_and_for_every_seed(name):
    one = prepare(dataclasses.replace(TrainConfig(), data=name, seed=0))
    other = prepare(dataclasses.replace(TrainConfig(), data=name, seed=1))
    for part in ("x", "y", "x_test", "y_test"):
        assert torch.equal(getattr(one.data, part), getattr(other.data, part))
    assert not torch.equal(one.split.labelled, other.split.labelled)


@pytest.fixture(scope="module")
def digits():
    return EMBEDDED["digits"]()


def test_digits_has_every_image_of_scikit_learn_once(digits):
    """Pool and test set together, up to the affine scaling, with their labels."""
    raw = datasets.load_digits()
    x, y = torch.cat([digits.x, digits.x_test]).double(), torch.cat([digits.y, digits.y_test])
    pixels = ((x - x.min()) * 16 / (x.max() - x.min())).flatten(1).numpy()
    np.testing.assert_allclose(pixels, pixels.round(), atol=1e-4)
    found = np.column_stack([pixels.round(), y.numpy()]).astype(int)
    expected = np.column_stack([raw.data, raw.target]).astype(int)
    assert found.shape == (1797, 65)
    assert np.array_equal(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)])


def test_digits_has_a_balanced_test_set(digits):
    assert len(digits.x_test) == 500
    assert torch.bincount(digits.y_test).tolist() == [50] * 10
    assert digits.x.shape == (1297, 1, 8, 8)


def test_digits_is_scaled_by_its_pool_alone(digits):
    assert abs(float(digits.x.double().mean())) < 1e-5
    assert float(digits.x.double().std()) == pytest.approx(1.0, abs=1e-5)


def test_the_strong_view_of_digits_is_stronger(digits):
    weak, strong = (view(digits.x[:200], rng.key(0)) for view in digits.augment[:2])
    values = set(digits.x.unique().tolist())
    assert set(weak.unique().tolist()) <= values
    assert len(set(strong.unique().tolist()) - values) > 1000


def test_moons_are_those_of_scikit_learn_scaled_by_the_pool():
    data = EMBEDDED["moons"](points=300, noise=0.0)
    raw, y = datasets.make_moons(n_samples=600, noise=0.0, random_state=0)
    pool = raw[:300]
    expected = (raw - pool.mean(0)) / pool.std(0, ddof=1)
    np.testing.assert_allclose(torch.cat([data.x, data.x_test]), expected, atol=1e-5)
    assert torch.equal(torch.cat([data.y, data.y_test]), torch.as_tensor(y))
    assert len(data.x) == len(data.x_test)


def test_moons_test_points_are_others():
    data = EMBEDDED["moons"]()
    assert not set(map(tuple, data.x.tolist())) & set(map(tuple, data.x_test.tolist()))


def test_moons_options():
    still, jittered = EMBEDDED["moons"](jitter=0.0), EMBEDDED["moons"](jitter=0.5)
    for data in (still, jittered):
        assert torch.equal(data.augment.weak(data.x, rng.key(0)), data.x)
    assert torch.equal(still.augment.strong(still.x, rng.key(0)), still.x)
    assert float((jittered.augment.strong(jittered.x, rng.key(0)) - jittered.x).std()) == pytest.approx(0.5, rel=0.1)


def test_breast_cancer_is_that_of_scikit_learn():
    data = EMBEDDED["breast-cancer"]()
    raw = datasets.load_breast_cancer()
    assert torch.bincount(data.y_test).tolist() == [round(0.3 * 212), round(0.3 * 357)]
    assert data.form.classes == ("malignant", "benign")
    values = torch.cat([data.x, data.x_test]).double().numpy()
    columns = data.form.details["columns"]
    values = values * [column["std"] for column in columns] + [column["mean"] for column in columns]
    rows = metrics.pairwise_distances_argmin(values, raw.data)
    assert sorted(rows) == list(range(569))
    assert np.array_equal(torch.cat([data.y, data.y_test]), raw.target[rows])
    pool = preprocessing.StandardScaler().fit(raw.data[rows[: len(data.x)]])
    np.testing.assert_allclose(pool.transform(raw.data[rows]), torch.cat([data.x, data.x_test]), rtol=1e-5, atol=1e-5)
