"""Flips, crops and squares against loops and Pillow, their draws against their distribution.

Statistics are of fixed keys, so they cannot fail now and then; bounds are four standard errors, or p > 10⁻³.
"""

import math

import numpy as np
import pytest
import torch
from asserts import assert_pure
from PIL import Image
from scipy import stats
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.core import rng
from metapl.data.augment import crops


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8))


def uniform_pvalue(outcomes, among):
    """Of the hypothesis that hashable outcomes are uniform over the `among` possible ones."""
    assert set(outcomes) <= set(among)
    return stats.chisquare([outcomes.count(outcome) for outcome in among]).pvalue


# ---------------------------------------------------------------- flip, pad_crop, cutout


def test_flip_exchanges_left_and_right_of_every_other_image():
    x = noise(4000, 3, 4, 5)
    found = crops.flip()(x, rng.key(0))
    flipped = (found == torch.from_numpy(x.numpy()[..., ::-1].copy())).flatten(1).all(1)
    kept = (found == x).flatten(1).all(1)
    assert bool((flipped ^ kept).all())
    assert stats.binomtest(int(flipped.sum()), 4000).pvalue > 1e-3
    assert stats.binomtest(int((flipped[1:] == flipped[:-1]).sum()), 3999).pvalue > 1e-3


def windows(image, pixels, fill):
    """Every window of a padded image, by NumPy: bytes to offset."""
    padded = np.pad(image, ((0, 0), (pixels, pixels), (pixels, pixels)), constant_values=fill)
    height, width = image.shape[1:]
    offsets = [(row, column) for row in range(2 * pixels + 1) for column in range(2 * pixels + 1)]
    return {padded[:, r : r + height, c : c + width].tobytes(): (r, c) for r, c in offsets}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("pixels", "fill"), [(1, 128), (2, 0), (4, 128)])
def test_pad_crop_takes_every_window_equally_often(pixels, fill, dtype):
    x = noise(1, 3, 6, 5).to(dtype).expand(4000, -1, -1, -1)
    found = crops.pad_crop(pixels, fill)(x, rng.key(0))
    assert found.dtype == dtype
    offsets = windows(x[0].numpy(), pixels, fill)
    assert len(offsets) == (2 * pixels + 1) ** 2
    assert uniform_pvalue([offsets[one.numpy().tobytes()] for one in found], list(offsets.values())) > 1e-3


def test_pad_crop_by_nothing_is_the_identity_and_by_more_than_the_image_may_leave_grey():
    x = noise(200, 3, 4, 4)
    assert torch.equal(crops.pad_crop(0)(x, rng.key(0)), x)
    assert bool((crops.pad_crop(40)(x, rng.key(0)) == 128).flatten(1).all(1).any())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("half_size", "fill"), [(1, 128), (2, 128), (2, 3)])
def test_cutout_centres_are_uniform_over_the_image(half_size, fill, dtype):
    """Every centre leaves another part of the image; all are as likely."""
    height, width = 6, 7
    x = noise(1, 3, height, width).to(dtype)
    outcomes = {}
    for row in range(height):
        for column in range(width):
            cut = x[0].clone()
            cut[:, max(row - half_size, 0) : row + half_size, max(column - half_size, 0) : column + half_size] = fill
            outcomes[cut.numpy().tobytes()] = (row, column)
    found = crops.cutout(half_size, fill)(x.expand(5000, -1, -1, -1), rng.key(0))
    assert found.dtype == dtype
    assert uniform_pvalue([outcomes[one.numpy().tobytes()] for one in found], list(outcomes.values())) > 1e-3


# ---------------------------------------------------------------- random_resized_crop


def boxes_by_loops(count, height, width, area, aspect):
    """Boxes as one usually draws them, one after another."""
    draw = np.random.default_rng(1)
    found = []
    while len(found) < count:
        ratio = math.exp(draw.uniform(*np.log(aspect)))
        wanted = draw.uniform(*area) * height * width
        w, h = round(math.sqrt(wanted * ratio)), round(math.sqrt(wanted / ratio))
        if 1 <= w <= width and 1 <= h <= height:
            found.append((draw.integers(height - h + 1), draw.integers(width - w + 1), h, w))
    return np.array(found)


def aspects_of_boxes(top, left, height, width):
    return top, left, height, width, height * width, width / height, top + height, left + width, top - left


@pytest.mark.parametrize(
    ("size", "area", "aspect"),
    [
        ((300, 300), (0.08, 1.0), (3 / 4, 4 / 3)),
        ((300, 400), (0.08, 1.0), (3 / 4, 4 / 3)),
        ((300, 200), (0.2, 0.5), (0.5, 1.0)),
        ((10, 10), (0.3, 1.0), (3 / 4, 4 / 3)),
    ],
)
def test_boxes_are_drawn_as_usual(size, area, aspect):
    """Heights, widths, areas, aspects and places have the distributions of a loop with rejection."""
    top, left, height, width = crops.random_boxes(rng.key(0), torch.empty(8000, 1, *size), area, aspect)
    truth = boxes_by_loops(8000, *size, area, aspect).T.astype(float)
    found = np.stack([value.double().numpy() for value in (top, left, height, width)])
    for mine, theirs in zip(aspects_of_boxes(*found), aspects_of_boxes(*truth), strict=True):
        assert stats.ks_2samp(mine, theirs, method="asymp").pvalue > 1e-3
    assert np.array_equal(found, found.round())
    assert bool(((top >= 0) & (top + height <= size[0]) & (left >= 0) & (left + width <= size[1])).all())


FALLBACKS = [
    ((10, 100), (3 / 4, 4 / 3), (0, 43, 10, 13)),
    ((100, 10), (3 / 4, 4 / 3), (43, 0, 13, 10)),
    ((40, 40), (1.2, 1.3), (3, 0, 33, 40)),
    ((1000, 1126), (1.0, 1.3), (0, 0, 1000, 1126)),
    ((50, 1), (4.0, 4.0), (24, 0, 1, 1)),
]


@pytest.mark.parametrize(("size", "aspect", "expected"), FALLBACKS)
def test_where_no_box_fits_the_central_one_is_taken(size, aspect, expected):
    """The largest of an allowed aspect; where the place is not whole, the one further up and left."""
    boxes = crops.random_boxes(rng.key(0), torch.empty(20, 1, *size), (1.0, 1.0), aspect)
    assert [set(part.tolist()) for part in boxes] == [{float(value)} for value in expected]


BOXES = [(0, 0, 20, 30), (3, 5, 1, 1), (0, 29, 20, 1), (19, 0, 1, 30), (4, 6, 11, 7), (7, 11, 13, 19), (12, 20, 8, 10)]
AS_BOXES = crops.Boxes(*torch.tensor(BOXES, dtype=torch.float32).T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 8, 20, 33])
def test_a_resized_crop_is_the_crop_resized(size, channels, dtype):
    x = 255 * torch.from_numpy(np.random.default_rng(0).random((len(BOXES), channels, 20, 30))).to(dtype)
    found = crops.resized_crop(x, AS_BOXES, size)
    assert (found.shape, found.dtype) == ((len(BOXES), channels, size, size), dtype)
    for one, after, (top, left, height, width) in zip(x, found, BOXES, strict=True):
        part = one[None, :, top : top + height, left : left + width]
        expected = F.interpolate(part, (size, size), mode="bilinear", align_corners=False, antialias=False)[0]
        assert float((after - expected).abs().max()) < (2e-2 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_enlarged_crop_is_that_of_pillow(channels):
    """Which smooths where it makes images smaller, so that only larger ones can be compared."""
    x, size = noise(len(BOXES), channels, 20, 30), 37
    found = crops.resized_crop(x, AS_BOXES, size)
    assert found.dtype == torch.uint8
    for one, after, (top, left, height, width) in zip(x, found, BOXES, strict=True):
        for band, resized in zip(one.numpy(), after.numpy(), strict=True):
            part = Image.fromarray(band).crop((left, top, left + width, top + height))
            expected = np.asarray(part.convert("F").resize((size, size), Image.Resampling.BILINEAR))
            assert np.abs(resized - expected).max() < 0.501  # rounded once, where Pillow would round twice


def test_crops_of_an_image_differ_and_keep_its_levels():
    x = noise(1, 3, 90, 120).clamp(50, 200).expand(64, -1, -1, -1)
    found = crops.random_resized_crop(16)(x, rng.key(0))
    assert found.shape == (64, 3, 16, 16)
    assert len(found.unique(dim=0)) == 64
    assert 50 <= int(found.min()) <= int(found.max()) <= 200


def test_a_random_crop_is_that_of_its_box():
    x = noise(30, 3, 24, 40)
    boxes = crops.random_boxes(rng.key(5), x, (0.3, 0.4), (1.0, 1.5))
    found = crops.random_resized_crop(16, (0.3, 0.4), (1.0, 1.5))(x, rng.key(5))
    assert torch.equal(found, crops.resized_crop(x, boxes, 16))


# ---------------------------------------------------------------- normalise

MEAN, STD = (0.4914, 0.482158, 0.4465309), (0.247032, 0.243485, 0.26159)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_normalise_shifts_and_scales_every_channel(dtype):
    x = noise(4, 3, 5, 6)
    expected = np.empty(x.shape)
    for channel in range(3):
        expected[:, channel] = (x.numpy()[:, channel] / 255.0 - MEAN[channel]) / STD[channel]
    found = assert_pure(crops.normalise(MEAN, STD), x.to(dtype))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize(("mean", "channels"), [(MEAN, 1), ((0.5,), 3)])
def test_normalise_does_not_broadcast_channels(mean, channels):
    with pytest.raises(ValueError, match=rf"of {len(mean)} channels was given images of {channels}"):
        crops.normalise(mean, mean)(noise(2, channels, 4, 4))


# ---------------------------------------------------------------- all of them

VIEWS = {
    "flip": crops.flip(),
    "pad_crop": crops.pad_crop(2),
    "cutout": crops.cutout(2),
    "random_resized_crop": crops.random_resized_crop(6),
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", VIEWS)
def test_views_are_pure_and_keep_their_dtype(name, channels, dtype):
    x = noise(40, channels, 6, 6).to(dtype)
    found = assert_pure(VIEWS[name], x, rng.key(0))
    assert (found.shape, found.dtype) == (x.shape, dtype)
    assert not torch.equal(VIEWS[name](x, rng.key(1)), found)


@pytest.mark.parametrize("name", VIEWS)
def test_views_stay_on_the_device_of_the_images(name):
    """The meta device refuses, as a GPU would, to mix its tensors with those of the CPU."""
    x = torch.empty(8, 3, 6, 6, device="meta")
    assert VIEWS[name](x, rng.key(0)).device == x.device


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: crops.pad_crop(-1), r"pad_crop\(-1\) must be at least 0"),
        (lambda: crops.cutout(-1), r"cutout\(-1\) must be at least 0"),
        (lambda: crops.random_resized_crop(0), r"random_resized_crop\(0\) must be at least 1"),
        (lambda: crops.random_resized_crop(8, area=(0.0, 1.0)), r"area=\(0.0, 1.0\)\) must be positive"),
        (lambda: crops.random_resized_crop(8, area=(0.5, 1.5)), r"area=.* at most 1"),
        (lambda: crops.random_resized_crop(8, aspect=(2.0, 1.0)), r"aspect=.* in order"),
        (lambda: crops.normalise(MEAN, STD[:1]), "a positive standard deviation for every channel"),
        (lambda: crops.normalise(MEAN, (1.0, 0.0, 1.0)), "a positive standard deviation for every channel"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
