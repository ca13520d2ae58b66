"""One's own arrays, against numpy and scikit-learn."""

import re

import numpy as np
import pytest
import torch
from pictures import random_levels
from sklearn.preprocessing import StandardScaler

from metapl.core import rng
from metapl.data.form import Form
from metapl.data.formats import arrays
from metapl.data.sources import STORED
from metapl.data.sources.held_out import hold_out
from metapl.registry.errors import InputError

load, recognise = STORED["arrays"][:2]

GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.normal(size=(20, 4)) * [1, 5, 0.01, 1000] + [0, 3, 1, -500]
Y = np.arange(20) % 3
POOL, TEST = (index.numpy() for index in hold_out(torch.from_numpy(Y), 0.2, rng.key(0)))


def save(place, **named):
    np.savez(place / "own.npz", **named)
    return place / "own.npz"


def save_folder(place, **named):
    for name, array in named.items():
        np.save(place / f"{name}.npy", array)
    return place


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("write", [save, save_folder])
def test_features_are_standardised_by_the_pool(tmp_path, write):
    data = load(write(tmp_path, x=FEATURES, y=Y))
    scaler = StandardScaler().fit(FEATURES[POOL])
    np.testing.assert_allclose(data.x, scaler.transform(FEATURES[POOL]), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(data.x_test, scaler.transform(FEATURES[TEST]), rtol=1e-6, atol=1e-6)
    assert data.x.dtype == data.x_test.dtype == torch.float32
    assert data.y.tolist() == Y[POOL].tolist()
    assert data.y_test.tolist() == Y[TEST].tolist()
    assert (data.form.kind, data.form.shape, data.form.classes) == ("arrays", (4,), ("0", "1", "2"))
    np.testing.assert_allclose(data.form.details["mean"], scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(data.form.details["std"], scaler.scale_, rtol=1e-12)


def test_unlabelled_examples_count_in_the_statistics(tmp_path):
    more = FEATURES[:7] + 100
    data = load(save(tmp_path, x=FEATURES, y=Y, x_test=FEATURES[:5] - 1, y_test=Y[:5], x_unlabelled=more))
    scaler = StandardScaler().fit(np.concatenate([FEATURES, more]))
    np.testing.assert_allclose(data.x, scaler.transform(np.concatenate([FEATURES, more])), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.x_test, scaler.transform(FEATURES[:5] - 1), rtol=1e-5, atol=1e-6)
    assert data.y.tolist() == [*Y.tolist(), *[-1] * 7]


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 / 3])
def test_a_constant_feature_becomes_0(tmp_path, constant):
    x = FEATURES.copy()
    x[:, 2] = constant
    data = load(save(tmp_path, x=x, y=Y))
    assert data.form.details["std"][2] == 1.0
    assert data.x[:, 2].abs().max() < 1e-9


def test_arrays_of_more_dimensions_have_one_mean(tmp_path):
    """Channels first, in no fewer digits than they had, where somebody says that they are no images."""
    x = GENERATOR.random((20, 6, 5, 3)).astype(np.float32)
    data = load(save(tmp_path, x=x, y=Y), read_as="numbers")
    pool = x[POOL].astype(np.float64)
    assert data.form.shape == (3, 6, 5)
    assert data.form.details["mean"] == pytest.approx(pool.mean(), rel=1e-12)
    assert data.form.details["std"] == pytest.approx(pool.std(), rel=1e-12)
    expected = (pool - pool.mean()) / pool.std()
    np.testing.assert_allclose(data.x, expected.transpose(0, 3, 1, 2), rtol=1e-6, atol=1e-6)
    assert data.augment.weak(data.x, rng.key(0)).shape == data.x.shape


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int64", "float16", ">f4", "bool"])
def test_all_kinds_of_numbers(tmp_path, dtype):
    x = (np.abs(FEATURES) % 7 > 2) if dtype == "bool" else (np.abs(FEATURES) % 7).astype(dtype)
    data = load(save(tmp_path, x=x, y=Y))
    assert data.x.dtype == torch.float32
    wanted = StandardScaler().fit(x[POOL].astype(float)).transform(x[POOL].astype(float))
    np.testing.assert_allclose(data.x, wanted, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("shape", "axes", "form"),
    [
        ((20, 6, 5), lambda x: x[:, None], (1, 6, 5)),
        ((20, 6, 5, 1), lambda x: x.transpose(0, 3, 1, 2), (1, 6, 5)),
        ((20, 6, 5, 3), lambda x: x.transpose(0, 3, 1, 2), (3, 6, 5)),
        ((20, 1, 6, 5), lambda x: x, (1, 6, 5)),
        ((20, 3, 6, 5), lambda x: x, (3, 6, 5)),
        ((20, 3, 6, 3), lambda x: x, (3, 6, 3)),
        ((20, 1, 6, 3), lambda x: x, (1, 6, 3)),
    ],
)
def test_images_keep_their_levels_with_channels_first(tmp_path, shape, axes, form):
    x = random_levels(*shape)
    data = load(save(tmp_path, x=x, y=Y))
    assert (data.form.kind, data.form.shape) == ("images", form)
    assert data.x.dtype == torch.uint8
    np.testing.assert_array_equal(data.x.numpy(), axes(x)[POOL])
    np.testing.assert_array_equal(data.x_test.numpy(), axes(x)[TEST])
    np.testing.assert_allclose(data.form.details["mean"], (axes(x)[POOL] / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.form.details["std"], (axes(x)[POOL] / 255).std((0, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 3), (3, 1, 1), (1, 1, 3), (4,), (2, 6, 5)])
def test_what_was_written_in_stored_form_comes_back(tmp_path, shape):
    """As `metapl data prepare` writes it: uint8 `[n, c, h, w]` or standardised float32, with the names of classes."""
    if shape[0] in (1, 3):
        x, x_test = random_levels(20, *shape), random_levels(5, *shape, seed=1)
    else:
        raw = GENERATOR.normal(size=(25, *shape))
        mean, std = (raw[:20].mean(0), raw[:20].std(0)) if len(shape) == 1 else (raw[:20].mean(), raw[:20].std())
        x, x_test = np.split(((raw - mean) / std).astype(np.float32), [20])
    y = np.where(np.arange(20) < 15, Y, -1)
    file = save(tmp_path, x=x, y=y, x_test=x_test, y_test=Y[:5], classes=np.array(["b", "a", "c"]))
    data = load(file)
    compare = np.testing.assert_array_equal if x.dtype == np.uint8 else np.testing.assert_allclose
    options = {} if x.dtype == np.uint8 else {"rtol": 1e-5, "atol": 1e-6}
    compare(data.x.numpy(), x, **options)
    compare(data.x_test.numpy(), x_test, **options)
    assert data.y.tolist() == y.tolist()
    assert data.y_test.tolist() == Y[:5].tolist()
    assert data.form.classes == ("b", "a", "c")


# ---------------------------------------------------------------- labels


def labels(tmp_path, y, **named):
    data = load(save(tmp_path, x=FEATURES, y=y, x_test=FEATURES[:1], y_test=y[:1], **named))
    return data.y.tolist(), data.form.classes


UNKNOWN = np.where(Y == 1, -1, Y)


@pytest.mark.parametrize(
    ("y", "named", "expected", "classes"),
    [
        (Y, {}, Y, ("0", "1", "2")),
        (Y[:, None], {}, Y, ("0", "1", "2")),
        (Y.astype(np.uint8), {}, Y, ("0", "1", "2")),
        (Y.astype(float), {}, Y, ("0", "1", "2")),
        (Y > 0, {}, Y > 0, ("0", "1")),
        (10 * Y + 2, {}, Y, ("2", "12", "22")),
        (Y, {"classes": np.array(["z", "y", "x", "w"])}, Y, ("z", "y", "x", "w")),
        (Y, {"classes": np.array([b"z", b"y", b"x"])}, Y, ("z", "y", "x")),
        (Y, {"classes": np.array([7, 8, 9])}, Y, ("7", "8", "9")),
        (np.array(["b", "ä", "c"])[Y], {}, np.array([0, 2, 1])[Y], ("b", "c", "ä")),
        (np.array([b"b", "ä".encode(), b"c"])[Y], {}, np.array([0, 2, 1])[Y], ("b", "c", "ä")),
        (np.array(["b", "a", "c"])[Y], {"classes": np.array(["c", "b", "a"])}, np.array([1, 2, 0])[Y], ("c", "b", "a")),
        (UNKNOWN, {}, np.where(Y == 1, -1, Y // 2), ("0", "2")),
        (UNKNOWN, {"classes": np.array(["a", "b", "c"])}, UNKNOWN, ("a", "b", "c")),
        (np.where(Y == 1, np.nan, Y), {}, np.where(Y == 1, -1, Y // 2), ("0", "2")),
        (np.array(["b", "", "c"])[Y], {}, np.array([0, -1, 1])[Y], ("b", "c")),
    ],
)
def test_labels(tmp_path, y, named, expected, classes):
    assert labels(tmp_path, y, **named) == (expected.astype(int).tolist(), classes)


def test_unknown_labels_are_not_held_out(tmp_path):
    y = np.where(np.arange(20) < 8, -1, Y)
    data = load(save(tmp_path, x=FEATURES, y=y), test=0.5)
    assert data.y_test.bincount().tolist() == [2, 2, 2]
    assert (data.y == -1).sum() == 8


@pytest.mark.parametrize(
    "names",
    [
        ("X", "y", "X_test", "y_test"),
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "y_train", "X_test", "y_test"),
        ("images", "labels", "test_images", "test_labels"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("data", "target", "x_test", "y_test"),
    ],
)
def test_usual_names(tmp_path, names):
    x, y, x_test, y_test = names
    given = {
        x: random_levels(20, 4, 4),
        y: Y,
        x_test: random_levels(5, 4, 4),
        y_test: Y[:5],
        "more_images": np.zeros(1),
    }
    data = load(save(tmp_path, **given))
    np.testing.assert_array_equal(data.x[:, 0].numpy(), random_levels(20, 4, 4))
    assert data.y_test.tolist() == Y[:5].tolist()


# ---------------------------------------------------------------- fresh examples

FORM = Form("arrays", (4,), ("a", "b"), {"mean": [0.0, 1.0, 2.0, 3.0], "std": [1.0, 2.0, 4.0, 8.0]})


def test_fresh_examples_are_standardised_by_the_form(tmp_path):
    np.save(tmp_path / "b.npy", FEATURES)
    (tmp_path / "folder").mkdir()
    places = [tmp_path / "b.npy", save(tmp_path, data=FEATURES[:3], y=Y), save_folder(tmp_path / "folder", x=FEATURES)]
    inputs = arrays.read(FORM, places)
    expected = (np.concatenate([FEATURES, FEATURES[:3], FEATURES]) - [0, 1, 2, 3]) / [1, 2, 4, 8]
    np.testing.assert_allclose(inputs.x, expected, rtol=1e-6)
    counts = zip(places, (20, 3, 20), strict=True)
    assert list(inputs.names) == [f"{place}[{number}]" for place, count in counts for number in range(count)]


@pytest.mark.parametrize("shape", [(20, 4), (20, 5, 6, 3), (20, 5, 6)])
def test_the_pool_read_again_is_the_pool(tmp_path, shape):
    x = GENERATOR.normal(size=shape)
    data = load(save(tmp_path, x=x, y=Y), read_as="numbers")
    np.save(tmp_path / "pool.npy", x[POOL])
    assert torch.equal(arrays.read(data.form, [tmp_path / "pool.npy"]).x, data.x)


def test_fresh_examples_of_another_shape_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", FEATURES[:, :3])
    message = r"x\.npy: examples of shape \(3,\), but the run learnt from \(4,\): give arrays of that shape$"
    with pytest.raises(InputError, match=message):
        arrays.read(FORM, [tmp_path / "x.npy"])


# ---------------------------------------------------------------- recognition


def test_arrays_are_recognised_by_their_names(tmp_path):
    save_folder(tmp_path, X_train=FEATURES)
    (tmp_path / "empty").mkdir()
    places = [tmp_path, save(tmp_path), tmp_path / "empty", tmp_path / "X_train.npy", tmp_path / "nowhere.npz"]
    assert [recognise(place) for place in places] == [True, True, False, False, False]


def test_messages_name_the_file_in_one_line(tmp_path):
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(tmp_path))}/own\.npz: no array x among y: call it x or X or"
    ):
        load(save(tmp_path, y=Y))
