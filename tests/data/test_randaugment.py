"""RandAugment: its magnitudes against Pillow, its draws against their distribution.

Statistics are of fixed keys, so they cannot fail now and then; bounds are four standard errors, or p > 10⁻³.
"""

import itertools

import numpy as np
import pytest
import torch
from asserts import assert_pure
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from metapl.core import rng
from metapl.data.augment import crops
from metapl.data.augment.base import compose
from metapl.data.augment.randaugment import Draw, pool, randaugment

CIFAR = {"magnitude": 16.0, "translate": 4.0, "cutout": 4.0}
IMAGENET = {"magnitude": 17.0, "translate": 100.0, "cutout": 40.0}


def noise(*shape, low=0, high=256, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(low, high, shape).astype(np.uint8))


def copies(count):
    """One image, many times; with 256 pixels or more, so that no operation, not even Equalize, leaves it as it is."""
    return noise(1, 3, 17, 17, low=20, high=230).expand(count, -1, -1, -1)


def by_pillow(function, image):
    return torch.from_numpy(np.array(function(Image.fromarray(image.permute(1, 2, 0).numpy())))).permute(2, 0, 1)


def moved(*coefficients):
    fill = (128, 128, 128)
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, coefficients, fillcolor=fill)


def released(rotate, shear, shift, factor, threshold):
    """The table of the released code in Pillow's terms, for the sign +1 and for −1."""
    return {
        "AutoContrast": [ImageOps.autocontrast] * 2,
        "Equalize": [ImageOps.equalize] * 2,
        "Invert": [ImageOps.invert] * 2,
        "Rotate": [lambda image, s=s: image.rotate(s * rotate, fillcolor=(128,) * 3) for s in (1, -1)],
        "Posterize": [lambda image: ImageOps.posterize(image, 6)] * 2,
        "Solarize": [lambda image: ImageOps.solarize(image, threshold)] * 2,
        "Color": [lambda image: ImageEnhance.Color(image).enhance(factor)] * 2,
        "Contrast": [lambda image: ImageEnhance.Contrast(image).enhance(factor)] * 2,
        "Brightness": [lambda image: ImageEnhance.Brightness(image).enhance(factor)] * 2,
        "Sharpness": [lambda image: ImageEnhance.Sharpness(image).enhance(factor)] * 2,
        "ShearX": [moved(1, s * shear, 0, 0, 1, 0) for s in (1, -1)],
        "ShearY": [moved(1, 0, 0, s * shear, 1, 0) for s in (1, -1)],
        "TranslateX": [moved(1, 0, s * shift, 0, 1, 0) for s in (1, -1)],
        "TranslateY": [moved(1, 0, 0, 0, 1, s * shift) for s in (1, -1)],
    }


SETTINGS = [
    pytest.param(CIFAR, released(48, 0.48, 6.4, 2.98, 153), 6, (3, 32, 32), id="cifar"),
    pytest.param(IMAGENET, released(51, 0.51, 170, 3.16, 179), 68, (3, 224, 224), id="imagenet"),
]


@pytest.mark.parametrize(("options", "truth", "half_size", "shape"), SETTINGS)
def test_magnitudes_are_those_of_the_released_code(options, truth, half_size, shape):
    made = pool(**options)
    assert set(made) == {*truth, "Cutout"}
    x = noise(1, *shape, low=30, high=200)
    for sign, name in itertools.product((1, -1), truth):
        found = made[name](x, Draw(torch.tensor([sign]), torch.zeros(1, 2)))[0]
        apart = (found.int() - by_pillow(truth[name][sign < 0], x[0]).int()).abs()
        assert int(apart.max()) <= 1, name
        assert float((apart > 0).float().mean()) < 0.01, name
    square = made["Cutout"](0 * x, Draw(torch.tensor([1]), torch.full((1, 2), 0.5)))[0, 0]
    assert torch.equal(square.count_nonzero(0), square.count_nonzero(1))
    assert square.count_nonzero() == (2 * half_size) ** 2
    assert set(square.unique().tolist()) == {0, 128}


@pytest.mark.parametrize(("magnitude", "bits"), [(1.0, 1), (5.0, 2), (9.0, 3), (10.0, 4), (20.0, 8), (30.0, 8)])
def test_posterize_keeps_more_bits_at_larger_magnitudes(magnitude, bits):
    x = noise(1, 3, 16, 16)
    found = pool(magnitude, 4.0, 4.0)["Posterize"](x, Draw(torch.ones(1), torch.zeros(1, 2)))[0]
    assert torch.equal(found, by_pillow(lambda image: ImageOps.posterize(image, bits), x[0]))


def test_released_errors_are_not_copied():
    """Levels that a blend takes past 255 are 255; Contrast leaves an image of one level alone."""
    draw, light = Draw(torch.ones(1), torch.zeros(1, 2)), torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    made = pool(**CIFAR)
    assert bool((made["Brightness"](light, draw) == 255).all())
    assert torch.equal(made["Contrast"](light, draw), light)


# ---------------------------------------------------------------- draws

COUNT = 10_000
ALWAYS = (1.0, 1.0)


def bound(share):
    """Four standard errors of a share."""
    return 4 * (share * (1 - share) / COUNT) ** 0.5


def unaltered(x, **options):
    found = randaugment(**options)(x, rng.key(0))
    return float((found == x).flatten(1).all(1).double().mean())


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_layers_share_the_probability_of_an_image(layers):
    """E (1 − p)^L over U(0.2, 0.8); it is 0.28 for two layers, and would be 0.25 were p drawn anew for each."""
    expected = (0.8 ** (layers + 1) - 0.2 ** (layers + 1)) / ((layers + 1) * 0.6)
    assert unaltered(copies(COUNT), layers=layers) == pytest.approx(expected, abs=bound(expected))


def test_layers_are_applied_independently_of_one_another():
    assert unaltered(copies(COUNT), probability=(0.5, 0.5)) == pytest.approx(0.25, abs=bound(0.25))


def test_layers_draw_operations_of_their_own():
    """Both are Invert, which is to do nothing, in 1 of 225 images; the same in both layers would be in 1 of 15."""
    assert unaltered(copies(COUNT), probability=ALWAYS) == pytest.approx(1 / 225, abs=bound(1 / 225))


def test_layers_draw_signs_of_their_own():
    x = copies(COUNT)
    found = randaugment(magnitude=10.0, translate=1.0, probability=ALWAYS)(x, rng.key(1))
    steps = {sign: moved(1, 0, sign, 0, 1, 0) for sign in (1, -1)}
    counted = []
    for one, other in itertools.product(steps, steps):
        twice = by_pillow(steps[other], by_pillow(steps[one], x[0]))
        counted.append(int((found == twice).flatten(1).all(1).sum()))
    assert sum(counted) == pytest.approx(COUNT / 225, abs=COUNT * bound(1 / 225))
    assert stats.chisquare(counted).pvalue > 1e-3


def test_no_probability_and_no_layers_leave_images_as_they_are():
    x = noise(50, 3, 8, 8)
    assert torch.equal(randaugment(probability=(0.0, 0.0))(x, rng.key(0)), x)
    assert torch.equal(randaugment(layers=0)(x, rng.key(0)), x)


@pytest.fixture(scope="module")
def drawn():
    """Which operation each of many copies of one image got, 0 … 14, and the outcomes, one layer, always applied."""
    x = copies(COUNT)
    found = randaugment(layers=1, probability=ALWAYS)(x, rng.key(2))
    names = torch.full((COUNT,), 14)  # what nothing else explains is Cutout
    for index, variants in enumerate(released(48, 0.48, 6.4, 2.98, 153).values()):
        for function in variants:
            expected = by_pillow(function, x[0])
            apart = torch.maximum(found, expected) - torch.minimum(found, expected)
            names[apart.flatten(1).amax(1) <= 1] = index
    return names, found


def test_what_is_left_over_are_squares(drawn):
    names, found = drawn
    square = (found == 128).all(1) & (found != copies(1)).any(1)
    kept = (found == copies(1)).all(1)
    assert bool((square | kept)[names == 14].all())
    assert bool(square[names == 14].any(2).any(1).all())


@pytest.mark.parametrize("axis", [1, 2])
def test_centres_of_squares_are_drawn_uniformly(drawn, axis):
    """The columns, or the rows, that a square covers tell those of its centre."""
    names, found = drawn
    square = (found == 128).all(1)[names == 14]
    _, counted = square.any(axis).unique(dim=0, return_counts=True)
    assert len(counted) == 17
    assert stats.chisquare(counted.numpy()).pvalue > 1e-3


def test_operations_are_drawn_uniformly(drawn):
    counted = torch.bincount(drawn[0], minlength=15)
    assert stats.chisquare(counted.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("distance", [1, 2, 7])
def test_images_draw_independently_of_one_another(drawn, distance):
    names = drawn[0]
    pairs = torch.bincount(15 * names[:-distance] + names[distance:], minlength=225).reshape(15, 15)
    assert stats.chi2_contingency(pairs.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_signs_are_drawn_evenly(drawn, name):
    names, found = drawn
    truth = released(48, 0.48, 6.4, 2.98, 153)
    mine = found[names == list(truth).index(name)]
    counted = [int((mine == by_pillow(function, copies(1)[0])).flatten(1).all(1).sum()) for function in truth[name]]
    assert sum(counted) == len(mine)
    assert stats.binomtest(counted[0], len(mine)).pvalue > 1e-3


def test_what_an_image_draws_does_not_depend_on_which_others_are_altered():
    x = noise(500, 3, 17, 17)
    every, some = (randaugment(layers=1, probability=(p, p))(x, rng.key(3)) for p in (1.0, 0.5))
    altered, kept = ((some == other).flatten(1).all(1) for other in (every, x))
    assert bool((altered | kept).all())
    assert 150 < int(altered.sum()) < 350


def test_copies_of_an_image_come_out_different():
    """In the strong view of CIFAR. RandAugment alone cannot: 28 of 100 stay as they are, and 44 have one change."""
    weak = compose(crops.flip(), crops.pad_crop(4))
    strong = compose(weak, randaugment(), crops.cutout(8), weak)
    x = noise(1, 3, 32, 32).expand(128, -1, -1, -1)
    assert len(strong(x, rng.key(0)).unique(dim=0)) > 100


# ---------------------------------------------------------------- as a view


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(64, 3, 16, 16), (64, 1, 8, 11), (1, 3, 5, 4), (0, 3, 4, 4)])
def test_the_key_determines_the_view(shape, dtype):
    x = noise(*shape).to(dtype)
    found = assert_pure(randaugment(), x, rng.key(0))
    assert (found.shape, found.dtype) == (x.shape, dtype)
    assert torch.equal(found, randaugment()(x.to(torch.uint8), rng.key(0)).to(dtype))
    assert len(x) < 2 or not torch.equal(found, randaugment()(x, rng.key(1)))


def test_what_is_not_altered_is_not_rounded():
    assert unaltered(copies(COUNT) + 0.25) == pytest.approx(0.28, abs=bound(0.28))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"magnitude": -1.0}, r"magnitude=-1.0\) must not be negative"),
        ({"layers": -1}, r"layers=-1\) must not be negative"),
        ({"translate": -4.0}, r"translate=-4.0\) must not be negative"),
        ({"cutout": -4.0}, r"cutout=-4.0\) must not be negative"),
        ({"probability": (0.8, 0.2)}, r"probability=\(0.8, 0.2\)\) must be a low and a high end"),
        ({"probability": (-0.1, 0.2)}, r"probability=.* within 0 … 1"),
        ({"probability": (0.1, 1.2)}, r"probability=.* within 0 … 1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        randaugment(**options)
