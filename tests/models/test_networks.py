"""The published networks: sizes, shapes, and options that make no network."""

import itertools

import pytest
import torch
from hollow import CIFAR, CONVOLUTIONAL, PHOTO, PLANE, TINY, hollow, kinds, numbers
from torch import nn

from metapl.models import efficientnet, resnet18, resnet50, vit, wrn
from metapl.models.efficientnet import SIZES
from metapl.models.efficientnet import Block as Mobile
from metapl.models.resnet import Residual
from metapl.models.wideresnet import Block as Wide
from metapl.registry.errors import InputError

# ---------------------------------------------------------------- sizes


def wrn_size(channels, depth, width, classes):
    """Two numbers a BatchNorm channel, nine a 3×3 filter; a 1×1 shortcut where the shape changes."""
    widths = [16 * width, *(16 * width * 2**group for group in range(3))]
    total = 9 * channels * widths[0]
    for before, after in itertools.pairwise(widths):
        first = 2 * before + 9 * before * after + 2 * after + 9 * after**2 + (before * after if before != after else 0)
        total += first + ((depth - 4) // 6 - 1) * (4 * after + 18 * after**2)
    return total + 2 * widths[-1] + widths[-1] * classes + classes


@pytest.mark.parametrize(("channels", "depth", "width", "classes"), [(3, 28, 2, 10), (1, 10, 1, 4), (3, 28, 10, 100)])
def test_wrn_size(channels, depth, width, classes):
    module = hollow(wrn, (channels, 32, 32), classes, depth=depth, width=width)
    assert numbers(module) == wrn_size(channels, depth, width, classes)


def test_wrn_28_2_size():
    assert numbers(hollow(wrn, CIFAR, 10)) == 1_472_170


@pytest.mark.parametrize(
    ("build", "options", "published"),
    [
        (resnet18, {}, 11_689_512),
        (resnet50, {}, 25_557_032),
        (efficientnet, {"size": "b0"}, 5_288_548),
        (efficientnet, {"size": "b1"}, 7_794_184),
        (efficientnet, {"size": "b2"}, 9_109_994),
        (efficientnet, {"size": "b3"}, 12_233_232),
        (efficientnet, {"size": "b4"}, 19_341_616),
        (efficientnet, {"size": "b5"}, 30_389_784),
        (efficientnet, {"size": "b6"}, 43_040_704),
        (efficientnet, {"size": "b7"}, 66_347_960),
        (efficientnet, {"size": "l2"}, 480_309_308),
        # Published with a class token and its position, which are two vectors of the width.
        (vit, {"patch": 16, "depth": 12}, 5_717_416 - 2 * 192),
        (vit, {"patch": 16, "depth": 12, "width": 768, "heads": 12}, 86_567_656 - 2 * 768),
    ],
)
def test_published_sizes(build, options, published):
    assert numbers(hollow(build, PHOTO, 1000, **options)) == published


def test_the_wide_b6_is_b6_at_width_five():
    wide = hollow(efficientnet, PHOTO, 1000, size="b6-wide")
    assert numbers(wide) == numbers(hollow(efficientnet, PHOTO, 1000, size="b6", width=5.0 / 1.8))
    assert wide[0].out_channels == 5 * 32
    assert len(kinds(wide, Mobile)) == len(kinds(hollow(efficientnet, PHOTO, 1000, size="b6"), Mobile)) == 45


@pytest.mark.parametrize(("size", "published"), [("b0", 0.2), ("b3", 0.3), ("b4", 0.4), ("b7", 0.5), ("l2", 0.5)])
def test_the_dropout_of_a_size(size, published):
    assert hollow(efficientnet, CIFAR, 10, size=size, depth=0.1)[-2].p == published
    assert hollow(efficientnet, CIFAR, 10, size=size, depth=0.1, dropout=0.125)[-2].p == 0.125


def test_the_factors_of_every_size():
    """Tan and Le's published table; resolutions in pixels."""
    assert {name: tuple(size) for name, size in SIZES.items() if name in ("b0", "b2", "b6", "b8")} == {
        "b0": (1.0, 1.0, 224, 0.2),
        "b2": (1.1, 1.2, 260, 0.3),
        "b6": (1.8, 2.6, 528, 0.5),
        "b8": (2.2, 3.6, 672, 0.5),
    }


@pytest.mark.parametrize("build", TINY)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 12, 20), (1, 64, 64)])
def test_shapes(build, shape):
    module = build(shape, 7, **TINY[build]).eval()
    assert module(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("build", CONVOLUTIONAL)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 23), (3, 65, 71)])
def test_convolutions_take_images_of_any_size(build, shape):
    assert build(shape, 3, **TINY[build]).eval()(torch.zeros(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize(
    ("build", "shape", "side"),
    [
        (wrn, (3, 32, 32), 8),
        (wrn, (3, 64, 64), 16),
        (resnet18, (3, 32, 32), 4),
        (resnet18, (3, 63, 64), 8),
        (resnet18, (3, 64, 64), 2),
        (resnet50, (3, 32, 32), 4),
        (resnet50, (3, 224, 224), 7),
        (efficientnet, (3, 32, 32), 8),
        (efficientnet, (3, 64, 63), 16),
        (efficientnet, (3, 64, 64), 2),
        (efficientnet, (3, 224, 224), 7),
    ],
)
def test_the_side_of_the_last_features(build, shape, side):
    module = hollow(build, shape, 10)
    sides = []
    module[-3].register_forward_hook(lambda _, inputs, __: sides.append(inputs[0].shape[-2:]))
    module.eval()(torch.zeros(2, *shape, device="meta"))
    assert sides == [(side, side)]


def test_channels_of_the_groups():
    assert [block.branch[0].out_channels for block in kinds(hollow(wrn, CIFAR, 10), Wide)] == (
        [32] * 4 + [64] * 4 + [128] * 4
    )
    blocks = kinds(hollow(efficientnet, PHOTO, 10), Mobile)
    kernels = [max(layer.kernel_size[0] for layer in kinds(block, nn.Conv2d)) for block in blocks]
    assert kernels == [3] * 3 + [5] * 2 + [3] * 3 + [5] * 7 + [3]


@pytest.mark.parametrize(("shape", "halving"), [(PHOTO, [1, 3, 5, 11]), (CIFAR, [5, 11])])
def test_the_blocks_that_halve_the_image(shape, halving):
    """The first of the stages of 24, 40, 80 and 192 channels; of a small image the last two alone."""
    strides = [max(c.stride[0] for c in kinds(b, nn.Conv2d)) for b in kinds(hollow(efficientnet, shape, 10), Mobile)]
    assert [index for index, stride in enumerate(strides) if stride == 2] == halving


def test_the_stride_of_a_bottleneck_is_in_its_3x3_convolution():
    strided = [layer for layer in kinds(hollow(resnet50, CIFAR, 10), Residual) if len(layer.shortcut)]
    assert [[part.stride[0] for part in kinds(block.branch, nn.Conv2d)] for block in strided] == [
        [1, stride, 1] for stride in (1, 2, 2, 2)
    ]


# ---------------------------------------------------------------- options that make no network


@pytest.mark.parametrize("build", TINY)
def test_vectors_are_refused(build):
    with pytest.raises(ValueError, match=r"needs images.*\[2\]: use mlp"):
        build(PLANE, 10)


@pytest.mark.parametrize("shape", [(3, 32, 30), (3, 30, 32)])
def test_a_patch_must_divide_both_sides(shape):
    with pytest.raises(ValueError, match=f"patch=4.*divide the image, which is {shape[1]}×{shape[2]}"):
        vit(shape, 10)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (wrn, {"depth": 27}, "depth=27.*6 n [+] 4"),
        (wrn, {"depth": 4}, "depth=4.*6 n [+] 4"),
        (wrn, {"width": 0}, "width=0.*at least 1"),
        (resnet18, {"width": 0}, "resnet18.*width=0.*at least 1"),
        (resnet50, {"norm": "layer"}, "resnet50.*'layer'.*'batch' or 'group'"),
        (vit, {"patch": 5}, "patch=5.*divide the image.*32×32"),
        (vit, {"heads": 5}, "width=192, heads=5.*divide the width"),
        (vit, {"depth": 0}, "depth=0.*at least 1"),
        (efficientnet, {"size": "b9"}, "unknown size of efficientnet 'b9'.*b0.*l2"),
        (efficientnet, {"width": 0.0}, "width=0.0.*positive"),
        (efficientnet, {"depth": -1.0}, "depth=-1.0.*positive"),
        (efficientnet, {"drop_path": 1.5}, "drop_path=1.5.*between 0 and 1"),
        (efficientnet, {"drop_path": -0.5}, "drop_path=-0.5.*between 0 and 1"),
        *((build, {"dropout": 1.5}, "between 0 and 1") for build in TINY),
    ],
)
def test_options_that_make_no_network(build, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        hollow(build, CIFAR, 10, **options)
    assert isinstance(caught.value, InputError) == ("size" in options)
