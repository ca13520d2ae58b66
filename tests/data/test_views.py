"""The views of a data set: what they share, what they change, and that they fit the form."""

import pytest
import torch

from metapl.core import rng
from metapl.data.augment import image_views, presets
from metapl.data.augment.base import Augment, identity
from metapl.data.form import Form
from metapl.data.loader import Batch
from metapl.methods import base
from metapl.registry.errors import InputError
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare


def form(channels=3, side=32, **details):
    moments = {"mean": [0.4, 0.5, 0.6][:channels], "std": [0.2, 0.25, 0.3][:channels]}
    return Form("images", (channels, side, side), ("a", "b"), {**moments, **details})


def images(count=40, channels=3, side=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, side, side), generator=generator, dtype=torch.uint8)


def position(x):
    """Images whose grey level says where in the image they are."""
    return torch.arange(x.shape[-1], dtype=torch.uint8).expand_as(x)


@pytest.mark.parametrize("name", ["small", "large", "crop", "plain"])
def test_every_view_of_images_gives_standardised_ones(name):
    augment, x = presets.VIEWS[name](form()), images()
    shared = augment.shared(x, rng.key(0))
    for view in (augment.weak, augment.strong):
        found = augment.prepare(view(shared, rng.key(1)))
        assert found.shape == x.shape
        assert found.dtype == torch.float32
        assert torch.equal(found, augment.prepare(view(shared, rng.key(1))))
    expected = (x[:, 1].double() / 255 - 0.5) / 0.25
    torch.testing.assert_close(augment.prepare(x)[:, 1].double(), expected, rtol=1e-5, atol=1e-5)


def test_both_views_of_small_images_share_their_first_move():
    """With nothing else to do, the strong view differs from the weak one by one more move."""
    augment = image_views.small(form(), magnitude=0.0, layers=0, cutout=0.0, pad=0.0)
    x = images()
    shared = augment.shared(x, rng.key(0))
    assert torch.equal(augment.weak(shared, rng.key(1)), shared)
    strong = augment.strong(shared, rng.key(1))
    mirrored = [torch.equal(a, b.flip(-1)) and not torch.equal(a, b) for a, b in zip(strong, shared, strict=True)]
    assert 8 < sum(mirrored) < 32
    assert all(m or torch.equal(a, b) for m, a, b in zip(mirrored, strong, shared, strict=True))


@pytest.mark.parametrize(
    ("given", "flip", "mirrors"),
    [
        (form(), "auto", True),
        (form(1), "auto", False),
        (form(mirror=False), "auto", False),
        (form(1, mirror=True), "auto", True),
        (form(1), "yes", True),
        (form(), "no", False),
    ],
)
@pytest.mark.parametrize("name", ["small", "crop"])
def test_lettering_is_not_mirrored(name, given, flip, mirrors):
    x = position(images(channels=given.shape[0]))
    shared = presets.VIEWS[name](given, flip=flip, pad=0.0).shared(x, rng.key(0))
    falling = [bool(image[0, 0, 0] > image[0, 0, -1]) for image in shared]
    assert any(falling) == mirrors
    assert not all(falling)


def test_sizes_follow_the_side_of_the_image():
    """A move by an eighth: four pixels of 32, twelve of 96."""
    for side in (32, 96):
        x = position(images(200, 1, side)) + 1
        shared = image_views.crop(form(1, side), cutout=0.0).shared(x, rng.key(0))
        first = shared[:, 0, side // 2, side // 2].int() - 1 - side // 2
        assert {int(first.min()), int(first.max())} == {-side // 8, side // 8}


def test_large_images_are_cropped_and_then_mirrored_apart():
    augment = image_views.large(form(side=64), layers=0)
    x = position(images(side=64))
    shared = augment.shared(x, rng.key(0))
    assert not torch.equal(shared, x)
    weak, strong = augment.weak(shared, rng.key(1)), augment.strong(shared, rng.key(2))
    patterns = [tuple(bool(image[0, 32, 0] > image[0, 32, -1]) for image in view) for view in (weak, strong)]
    assert patterns[0] != patterns[1]
    assert all(any(pattern) and not all(pattern) for pattern in patterns)


@pytest.mark.parametrize("name", ["small", "large", "crop", "plain"])
def test_views_of_images_refuse_other_data(name):
    with pytest.raises(ValueError, match="images"):
        presets.VIEWS[name](Form("arrays", (4,), ("a", "b"), {}))


def test_the_default_fits_the_form():
    by_side = {side: presets.default(form(side=side)) for side in (32, 96, 128)}
    x = {side: images(4, side=side) for side in by_side}
    for side, augment in by_side.items():
        small = torch.equal(augment.weak(x[side], rng.key(1)), x[side])
        assert small == (side <= 96)
    assert presets.default(Form("arrays", (4,), ("a", "b"), {})).weak is identity


def test_a_step_shares_one_part_between_the_views_of_an_example():
    """The shared part, drawn once, goes through both views of the unlabelled examples; the labelled have their own."""

    def add(x, key):
        return x + rng.normal(key, x.shape)

    augment = Augment(lambda x, key: 10 * x, lambda x, key: 100 * x, add, lambda x: x + 1000)
    batch = Batch(torch.zeros(5, 1), torch.zeros(5), torch.zeros(5, 1))
    found = base.views(("labelled", "weak", "strong"), augment, batch, rng.key(0))
    weak, strong, labelled = (
        (found[name] - 1000) / by for name, by in (("weak", 10), ("strong", 100), ("labelled", 10))
    )
    torch.testing.assert_close(weak, strong, rtol=0, atol=1e-4)
    assert (weak - labelled).abs().min() > 1e-3
    fewer = base.views(("labelled", "strong"), augment, batch, rng.key(0))
    assert torch.equal(fewer["strong"], found["strong"])
    assert torch.equal(base.views(("labelled",), augment, batch, rng.key(0))["labelled"], found["labelled"])


def test_views_are_chosen_by_name():
    assert prepare(TrainConfig(data="moons", augment="jitter:noise=0.3")).data.augment.strong is not None
    with pytest.raises(InputError, match=r"unknown augment 'smal': did you mean 'small'\?"):
        prepare(TrainConfig(augment="smal"))
    with pytest.raises(InputError, match="jitter is for tables and vectors"):
        prepare(TrainConfig(augment="jitter"))
