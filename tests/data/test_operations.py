"""Image operations against Pillow, image by image."""

import numpy as np
import pytest
import torch
from asserts import assert_pure
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from metapl.data.augment import operations

quick = settings(deadline=None, derandomize=True, database=None, max_examples=15)


def grey(image):
    return 128 if image.mode == "L" else (128,) * 3


def moved(image, *coefficients):
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, fillcolor=grey(image))


FACTORS = (0.0, 0.1, 0.5, 1.0, 1.9, 2.98, 3.16, 10.0)
SLOPES = (0.0, 0.48, -0.48, 0.51, -0.51, 0.5, -2.0)
SHIFTS = (0.0, 1.0, 6.4, -6.4, 0.5, -0.5, 170.0, -170.0, 1e6)
WITHOUT_AMOUNT = {
    "autocontrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
    "invert": ImageOps.invert,
}
WITH_AMOUNT = {
    "rotate": (lambda image, v: image.rotate(v, fillcolor=grey(image)), (0, 13.7, 45, 48, -48, 51, -51, 90, 180, 400)),
    "posterize": (ImageOps.posterize, tuple(range(1, 9))),
    "solarize": (ImageOps.solarize, (0, 1, 127, 128, 153, 179, 255, 256, 409)),
    "color": (lambda image, v: ImageEnhance.Color(image).enhance(v), FACTORS),
    "contrast": (lambda image, v: ImageEnhance.Contrast(image).enhance(v), FACTORS),
    "brightness": (lambda image, v: ImageEnhance.Brightness(image).enhance(v), FACTORS),
    "sharpness": (lambda image, v: ImageEnhance.Sharpness(image).enhance(v), FACTORS),
    "shear_x": (lambda image, v: moved(image, 1, v, 0, 0, 1, 0), SLOPES),
    "shear_y": (lambda image, v: moved(image, 1, 0, 0, v, 1, 0), SLOPES),
    "translate_x": (lambda image, v: moved(image, 1, 0, v, 0, 1, 0), SHIFTS),
    "translate_y": (lambda image, v: moved(image, 1, 0, 0, 0, 1, v), SHIFTS),
}
BLENDS = ("color", "contrast", "brightness", "sharpness")


def images(count, channels, size, seed=0):
    """Turn and turn about: noise, noise of few levels, dark noise, a constant, a gradient, two levels."""
    draw = np.random.default_rng(seed)
    shape = (channels, *size)
    gradient = np.linspace(draw.integers(100), 255, num=size[0] * size[1]).reshape(size)
    kinds = (
        lambda: draw.integers(0, 256, shape),
        lambda: draw.integers(90, 140, shape),
        lambda: 255 * draw.random(shape) ** 4,
        lambda: np.full(shape, draw.integers(256)),
        lambda: np.broadcast_to(gradient, shape),
        lambda: draw.choice([31, 200], shape),
    )
    return torch.from_numpy(np.stack([kinds[index % 6]() for index in range(count)]).astype(np.uint8))


def by_pillow(function, x, *amounts):
    """A function of a Pillow image, on one image after another, each with its amount."""
    found = []
    for index, one in enumerate(x.permute(0, 2, 3, 1).numpy()):
        image = Image.fromarray(one[..., 0] if one.shape[2] == 1 else one)
        found.append(np.asarray(function(image, *(amount[index] for amount in amounts))).reshape(one.shape))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


def assert_same_images(name, found, expected):
    """Bit for bit; a compiler may fuse Pillow's a + f · (b − a), which moves levels that are all but whole."""
    assert found.dtype == torch.uint8
    apart = (found.int() - expected.int()).abs()
    assert int(apart.max()) <= (name in BLENDS), f"{name}: {int(apart.max())} levels apart"
    assert float((apart > 0).float().mean()) < 0.01


SIZES = [(32, 32), (17, 40), (3, 5), (2, 2), (1, 7), (96, 64)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", WITHOUT_AMOUNT)
def test_operations_without_an_amount(name, channels, size):
    x = images(12, channels, size)
    assert_same_images(name, getattr(operations, name)(x), by_pillow(WITHOUT_AMOUNT[name], x))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", WITH_AMOUNT)
def test_every_image_has_an_amount_of_its_own(name, channels, size):
    pillow, amounts = WITH_AMOUNT[name]
    x = images(6, channels, size).repeat_interleave(len(amounts), dim=0)
    each = [*amounts] * 6
    found = getattr(operations, name)(x, torch.tensor(each))
    assert_same_images(name, found, by_pillow(pillow, x, each))


@pytest.mark.parametrize("name", WITH_AMOUNT)
def test_one_amount_serves_all_images(name):
    x, operation = images(6, 3, (8, 9)), getattr(operations, name)
    for amount in WITH_AMOUNT[name][1]:
        assert torch.equal(operation(x, amount), operation(x, torch.full((6,), float(amount), dtype=torch.float64)))


RANGES = {
    "rotate": (-400.0, 400.0),
    "color": (0.0, 4.0),
    "contrast": (0.0, 4.0),
    "brightness": (0.0, 4.0),
    "sharpness": (0.0, 4.0),
    "shear_x": (-2.0, 2.0),
    "shear_y": (-2.0, 2.0),
    "translate_x": (-20.0, 20.0),
    "translate_y": (-20.0, 20.0),
}


@pytest.mark.parametrize("name", RANGES)
@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(1, 24), st.integers(1, 24)), st.sampled_from([1, 3]))
@quick
def test_any_amount(name, seed, size, channels):
    x = images(6, channels, size, seed)
    each = np.random.default_rng(seed).uniform(*RANGES[name], size=6)
    found = getattr(operations, name)(x, torch.from_numpy(each))
    assert_same_images(name, found, by_pillow(WITH_AMOUNT[name][0], x, each.tolist()))


@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from([1, 3]))
@quick
def test_any_histogram(seed, size, channels):
    x = images(12, channels, size, seed)
    for name, pillow in WITHOUT_AMOUNT.items():
        assert_same_images(name, getattr(operations, name)(x), by_pillow(pillow, x))


@pytest.mark.parametrize("fill", [0, 7, 255])
def test_what_is_outside_may_have_another_level(fill):
    x = images(6, 1, (9, 11))
    coefficients = (0.8, 0.3, -2.0, -0.3, 0.9, 3.0)
    found = operations.affine(x, coefficients, fill)
    assert torch.equal(
        found,
        by_pillow(lambda image: image.transform(image.size, Image.Transform.AFFINE, coefficients, fillcolor=fill), x),
    )


def test_posterize_to_no_bits_is_black():
    assert not operations.posterize(images(6, 3, (4, 4)), 0).any()


# ---------------------------------------------------------------- cutout


def squares(x, half_sizes, centres, fill):
    """By loops over the pixels."""
    found = x.clone()
    for index, (half, (row, column)) in enumerate(zip(half_sizes, centres, strict=True)):
        for i in range(max(row - half, 0), min(row + half, x.shape[2])):
            for j in range(max(column - half, 0), min(column + half, x.shape[3])):
                found[index, :, i, j] = fill
    return found


@pytest.mark.parametrize("half_size", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_cutout_fills_a_square_about_its_centre(half_size, dtype):
    size = (5, 6)
    centres = [(row, column) for row in range(5) for column in range(6)]
    x = images(30, 3, size).to(dtype)
    for edge in (0.001, 0.999):  # anywhere within the pixel
        fractions = (torch.tensor(centres) + edge) / torch.tensor(size)
        found = operations.cutout(x, half_size, fractions, 7)
        assert found.dtype == dtype
        assert torch.equal(found, squares(x, [half_size] * 30, centres, 7))


def test_cutout_is_grey_and_takes_a_size_for_each_image():
    x = images(6, 3, (7, 8))
    halves = [0, 1, 2, 3, 1, 2]
    centres = [(3, 3), (0, 0), (6, 7), (0, 7), (6, 0), (2, 5)]
    fractions = (torch.tensor(centres) + 0.5) / torch.tensor((7, 8))
    assert torch.equal(operations.cutout(x, torch.tensor(halves), fractions), squares(x, halves, centres, 128))


# ---------------------------------------------------------------- all of them

CALLS = {
    **dict.fromkeys(WITHOUT_AMOUNT, ()),
    **{name: (amounts[3],) for name, (_, amounts) in WITH_AMOUNT.items()},
    "cutout": (2, torch.full((12, 2), 0.5)),
}


def call(name, x, device="cpu"):
    amounts = [amount.to(device) if isinstance(amount, torch.Tensor) else amount for amount in CALLS[name]]
    return getattr(operations, name)(x, *amounts)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", CALLS)
def test_floating_point_images_are_treated_as_their_levels(name, dtype):
    x = images(12, 3, (9, 11))
    found = call(name, x.to(dtype))
    assert found.dtype == dtype
    assert torch.equal(found, call(name, x).to(dtype))


@pytest.mark.parametrize("name", [*WITHOUT_AMOUNT, "posterize", "solarize", *BLENDS])
def test_between_levels_is_the_nearest(name):
    x = images(12, 3, (9, 11))
    between = x + torch.from_numpy(np.random.default_rng(0).uniform(-0.49, 0.49, x.shape))
    assert torch.equal(call(name, between), call(name, x).double())
    assert torch.equal(call(name, 3.0 * x - 200.0), call(name, (3.0 * x - 200.0).clamp(0, 255)))


@pytest.mark.parametrize("name", CALLS)
def test_operations_are_pure(name):
    x = images(12, 3, (9, 11))
    assert call(name, x).shape == x.shape
    assert_pure(lambda images: call(name, images), x)


@pytest.mark.parametrize("name", CALLS)
def test_the_layout_in_memory_does_not_matter(name):
    x = images(12, 3, (9, 11))
    assert torch.equal(call(name, x.contiguous(memory_format=torch.channels_last)), call(name, x))
    same = x[:1].expand(12, -1, -1, -1)
    assert torch.equal(call(name, same), call(name, same.contiguous()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("name", CALLS)
def test_operations_stay_on_the_device_of_the_images(name, dtype):
    """The meta device refuses, as a GPU would, to mix its tensors with those of the CPU."""
    x = torch.empty(12, 3, 9, 11, dtype=dtype, device="meta")
    found = call(name, x, device="meta")
    assert (found.device, found.shape, found.dtype) == (x.device, x.shape, dtype)


@pytest.mark.parametrize("name", ["color", "contrast"])
@pytest.mark.parametrize("channels", [2, 4])
def test_images_without_a_grey_level_are_refused(name, channels):
    with pytest.raises(ValueError, match=rf"{channels} channels .* give \[batch, 1 or 3, height, width\]"):
        call(name, torch.zeros(12, channels, 4, 4, dtype=torch.uint8))
